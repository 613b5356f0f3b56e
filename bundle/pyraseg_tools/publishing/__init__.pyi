# SPDX-License-Identifier: Apache-2.0
from .packing import pack as pack
from .zoo import write_zoo as write_zoo
from .zoo import zoo_files as zoo_files

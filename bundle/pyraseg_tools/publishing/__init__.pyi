# SPDX-License-Identifier: Apache-2.0
from .hub import check_card as check_card
from .hub import check_repository as check_repository
from .hub import publish as publish
from .packing import pack as pack
from .zoo import write_zoo as write_zoo
from .zoo import zoo_files as zoo_files

# SPDX-License-Identifier: Apache-2.0
from .convert import FORMATS as FORMATS
from .convert import Settings as Settings
from .convert import require_all as require_all
from .convert import write_voc as write_voc
from .stacks import KEYWORDS as KEYWORDS
from .stacks import plan_stacks as plan_stacks
from .stacks import read_table as read_table

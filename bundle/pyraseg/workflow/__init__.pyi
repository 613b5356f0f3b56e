# SPDX-License-Identifier: Apache-2.0
from .config import components as components
from .config import config_text as config_text
from .config import leaves as leaves
from .config import merge_files as merge_files
from .config import override as override
from .config import parse_options as parse_options
from .config import read_config as read_config
from .config import references as references
from .config import require_kind as require_kind
from .record import PACKAGES as PACKAGES
from .record import log_environment as log_environment
from .record import run_record as run_record
from .record import write_record as write_record
from .running import bundle_root as bundle_root
from .running import check_config as check_config
from .running import plain_console as plain_console
from .running import warn as warn

# SPDX-License-Identifier: Apache-2.0
from .callers import bundle_root as bundle_root
from .config_check import check_config as check_config
from .console import plain_console as plain_console
from .console import warn as warn
from .environment import PACKAGES as PACKAGES
from .environment import log_environment as log_environment
from .record import run_record as run_record
from .record import write_record as write_record

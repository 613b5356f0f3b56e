# SPDX-License-Identifier: Apache-2.0
from .grid import Setting as Setting
from .grid import grid as grid
from .grid import parse_choices as parse_choices
from .plan import Trial as Trial
from .plan import in_part as in_part
from .plan import plan as plan
from .results import MOST_SEEDS_FEW as MOST_SEEDS_FEW
from .results import Row as Row
from .results import compared as compared
from .results import seed_interval as seed_interval
from .results import table_text as table_text
from .results import write_tables as write_tables
from .running import run_trials as run_trials
from .training import evaluation_options as evaluation_options

# SPDX-License-Identifier: Apache-2.0
from .results import Row as Row
from .results import compared as compared
from .results import table_text as table_text
from .results import write_tables as write_tables
from .running import run_trials as run_trials
from .settings import grid as grid
from .settings import parse_choices as parse_choices
from .training import evaluation_options as evaluation_options
from .trials import Trial as Trial
from .trials import in_part as in_part
from .trials import plan as plan

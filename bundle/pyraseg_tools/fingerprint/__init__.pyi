# SPDX-License-Identifier: Apache-2.0
from .measuring import CaseFingerprint as CaseFingerprint
from .measuring import measure_cases as measure_cases
from .page import class_table as class_table
from .page import report as report
from .page import settings_table as settings_table
from .page import write_cases as write_cases
from .pictures import draw_histograms as draw_histograms
from .pictures import draw_pairs as draw_pairs
from .rules import Setting as Setting
from .rules import propose_background_fraction as propose_background_fraction
from .rules import propose_grid as propose_grid
from .rules import propose_weights as propose_weights
from .rules import propose_windows as propose_windows
from .rules import suspicious as suspicious

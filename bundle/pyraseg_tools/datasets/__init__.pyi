# SPDX-License-Identifier: Apache-2.0
from .phantom.study import phantom_study as phantom_study
from .photographs import draw_photograph as draw_photograph
from .photographs import write_photograph_study as write_photograph_study

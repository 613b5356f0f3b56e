# SPDX-License-Identifier: Apache-2.0
from .cases import phantom_case as phantom_case
from .dicom_writer import write_series as write_series
from .study import phantom_study as phantom_study
from .study import write_phantom_study as write_phantom_study

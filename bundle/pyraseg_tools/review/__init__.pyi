# SPDX-License-Identifier: Apache-2.0
from .alarm import Rule as Rule
from .comparing import are_equal as are_equal
from .comparing import compare_labels as compare_labels
from .comparing import compare_segmentations as compare_segmentations
from .log import ReviewLog as ReviewLog
from .log import latest as latest
from .page import write_review_report as write_review_report
from .record import Algorithm as Algorithm
from .record import Result as Result
from .record import Review as Review
from .record import decide as decide
from .record import read_result as read_result
from .record import require_no_patient as require_no_patient

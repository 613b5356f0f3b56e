# SPDX-License-Identifier: Apache-2.0
from .archive import archive_bytes as archive_bytes
from .archive import read_archive as read_archive
from .archive import unpack as unpack
from .form import BILL as BILL
from .form import CHANGELOG as CHANGELOG
from .form import METADATA as METADATA
from .form import MODEL as MODEL
from .form import Verified as Verified
from .form import check_form as check_form
from .golden import run_golden as run_golden
from .sums import SIGNATURE as SIGNATURE
from .sums import SUMS as SUMS
from .sums import check_sums as check_sums
from .sums import sign as sign
from .sums import sums_text as sums_text
from .verification import verify as verify

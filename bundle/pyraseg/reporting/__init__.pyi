# SPDX-License-Identifier: Apache-2.0
from .page import write_report as write_report
from .pictures import CasePictures as CasePictures
from .rendering import render_page as render_page
from .sections import read_log as read_log

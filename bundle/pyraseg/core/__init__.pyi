# SPDX-License-Identifier: Apache-2.0
from .distributed import in_turn as in_turn
from .distributed import own_device as own_device
from .distributed import start_processes as start_processes
from .distributed import stop_processes as stop_processes
from .errors import DiskError as DiskError
from .errors import PyrasegError as PyrasegError
from .errors import describe as describe
from .errors import mendable as mendable
from .errors import root_of as root_of
from .files import replacing as replacing
from .formats import ITK as ITK
from .formats import NIFTI as NIFTI
from .formats import PHOTOGRAPH as PHOTOGRAPH
from .formats import without_suffix as without_suffix
from .hints import nearest_hint as nearest_hint
from .photographs import as_rgb as as_rgb
from .photographs import convert as convert

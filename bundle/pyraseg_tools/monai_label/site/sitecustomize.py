# SPDX-License-Identifier: Apache-2.0
"""What MONAI Label 0.8.5 needs mended before it can be imported, in one place.

Python imports a module of this name when it starts, so that the mends reach the processes that MONAI Label starts for
trainings too: `pyraseg label` puts this folder on their PYTHONPATH.
"""

import sys

import pydicom.uid

from bundle.pyraseg.networks import import_with_torchvision

# pydicom-seg 0.4.1 takes UIDs of storage classes from a module that pydicom 3 has merged into `pydicom.uid`.
sys.modules.setdefault("pydicom._storage_sopclass_uids", pydicom.uid)
# MONAI Label imports torchvision, which a PyTorch of another build breaks.
import_with_torchvision("torchvision")

# SPDX-License-Identifier: Apache-2.0
from .class_statistics import METHODS as METHODS
from .class_statistics import ClassCounts as ClassCounts
from .class_statistics import class_weights as class_weights
from .class_statistics import count_label as count_label
from .class_statistics import sum_counts as sum_counts
from .slice_cache import state_of_files as state_of_files
from .slices import Draw as Draw
from .slices import SliceDataset as SliceDataset
from .slices import check_cases as check_cases
from .volume_patches import PatchDataset as PatchDataset

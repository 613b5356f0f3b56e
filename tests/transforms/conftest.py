# SPDX-License-Identifier: Apache-2.0
"""A series that the tests of labels share."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.helpers.labeled_images import SPACING, TURN, make_series


@pytest.fixture(scope="module")
def oblique_series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Return the folder of an oblique series and its affine to RAS mm, worked out from PS3.3 C.7.6.2.1.1."""
    folder = tmp_path_factory.mktemp("series")
    make_series(folder)
    affine = nib.affines.from_matvec(TURN @ np.diag([SPACING[1], SPACING[0], 3]), [-20, 30, 100])
    return folder, np.diag([-1, -1, 1, 1]) @ affine

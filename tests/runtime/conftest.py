# SPDX-License-Identifier: Apache-2.0
"""An exported model for each kind of image."""

from types import SimpleNamespace

import pytest
from monai.transforms import Compose

from tests.helpers.exported import Exported, exported
from tests.helpers.onnx_paths import WINDOWS, photograph, projection, volume


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return a model for each kind of image."""

    def make(name: str, preprocessing: Compose, rgb: bool = False) -> Exported:
        return exported(tmp_path_factory.mktemp(name), preprocessing, rgb=rgb)

    return SimpleNamespace(
        ct=make("ct", volume(*WINDOWS, context_slices=1)),
        mr=make("mr", volume({"percentiles": [1, 99]}, context_slices=1)),
        header=make("header", volume("header", "soft_tissue", context_slices=1)),
        radiograph=make("radiograph", projection({"percentiles": [1, 99]})),
        photograph=make("photograph", photograph(), rgb=True),
    )

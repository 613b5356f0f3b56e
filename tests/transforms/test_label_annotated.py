# SPDX-License-Identifier: Apache-2.0
"""What a loaded label says of the classes that its case was annotated for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import Compose, LoadImaged
from PIL import Image

from bundle.pyraseg.core.errors import mendable
from bundle.pyraseg.transforms.label import LoadLabeld

CLASSES = ["background", "liver", "lesion", "spleen"]
LOAD = Compose(
    [
        LoadImaged("image", reader="bundle.pyraseg.transforms.MedicalImageReader", ensure_channel_first=True),
        LoadLabeld("label", class_names=CLASSES),
    ]
)


@pytest.fixture
def case(tmp_path: Path) -> dict[str, str]:
    for name, values in (("image", np.full((6, 5), 9)), ("label", np.tile([0, 1, 3], (6, 2))[:, :5])):
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"{name}.png")
    return {name: str(tmp_path / f"{name}.png") for name in ("image", "label")}


def test_names_become_a_mask_that_batches_hold(case):
    items = [{**case, "annotated": ["spleen", "Liver"]}, {**case, "annotated": CLASSES[1:]}, case]
    batch = next(iter(DataLoader(Dataset(items, LOAD), batch_size=3)))
    expected = [[True, True, False, True], [True] * 4, [True] * 4]
    assert batch["annotated"].tolist() == expected
    assert [item["annotated"].tolist() for item in decollate_batch(batch)] == expected
    assert torch.equal(batch["label"][0], LOAD(case)["label"])


def test_a_label_with_another_class_is_refused(case):
    with pytest.raises(Exception, match="label") as caught:
        LOAD({**case, "annotated": ["liver"]})
    fault = str(mendable(caught.value))
    assert "image.png has pixels of the class 'spleen'" in fault and "label.png" in fault

# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.reader import MedicalImageReader
from bundle.pyraseg.transforms.resampling import ResizePhotographd
from bundle.pyraseg.transforms.slices import DropSliceAxisd
from bundle.pyraseg.transforms.windowing import Windowd


def drop(image: torch.Tensor) -> torch.Tensor:
    return DropSliceAxisd("image")({"image": image})["image"]


def test_one_slice_becomes_a_2d_image_with_its_metadata():
    values = torch.rand(1, 4, 5, 1)
    result = drop(MetaTensor(values, meta={"inverted": True}))
    assert torch.equal(result.as_tensor(), values[..., 0]) and result.meta["inverted"] is True


def test_a_2d_image_stays():
    image = MetaTensor(torch.rand(3, 4, 5))
    assert drop(image) is image


def test_a_volume_is_refused():
    with pytest.raises(PyrasegError, match=r"volume\.dcm has 7 slices or frames, a projection has one"):
        drop(MetaTensor(torch.rand(1, 4, 5, 7), meta={"filename_or_obj": "volume.dcm"}))


def test_a_real_radiograph_goes_through_and_its_prediction_comes_back(real_data: Path) -> None:
    path = real_data / "dicom_robustness" / "RG3_J2KR.dcm"  # MONOCHROME1, 1760 x 1760
    stored = pydicom.dcmread(path).pixel_array
    chain = Compose(
        [
            LoadImaged("image", reader=MedicalImageReader(), ensure_channel_first=True),
            DropSliceAxisd("image"),
            Windowd("image", windows={"percentiles": [0, 100]}),
            ResizePhotographd("image", size=(440, 440), mode="bilinear"),
        ]
    )
    item = chain({"image": str(path)})
    assert item["image"].shape == (1, 440, 440)
    # Each of the 440 x 440 pixels stands for 4 x 4 stored ones; MONOCHROME1 is bright where the stored value is low.
    small = stored.reshape(440, 4, 440, 4).mean(axis=(1, 3)).T
    assert np.corrcoef(small.ravel(), np.asarray(item["image"]).ravel())[0, 1] < -0.999
    item["pred"] = item["image"]
    back = Invertd("pred", transform=chain, orig_keys="image", nearest_interp=False)(item)["pred"]
    assert back.shape == (1, 1760, 1760)
    assert np.corrcoef(stored.T.ravel(), np.asarray(back).ravel())[0, 1] < -0.99

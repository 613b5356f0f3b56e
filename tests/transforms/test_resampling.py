# SPDX-License-Identifier: Apache-2.0
"""Pixel size of slices, against functions of patient millimeters that a resampling must not change."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged, Resize
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.resampling import ResampleSlicesd, ResizePhotographd, resize_rasters, shrink_photograph
from tests.helpers.dicom_files import write_image

SHAPE = (48, 36, 3)
PIXEL = (0.8, 1.2, 5.0)
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])
TILT = np.eye(3) + np.outer([0, 0.3, 0], [0, 0, 1])
AFFINES = {
    name: nib.affines.from_matvec(directions @ np.diag(PIXEL), [3, -5, 7])
    for name, directions in {"axial": np.diag([-1.0, -1, 1]), "oblique": TURN, "tilted": TILT}.items()
}
GRADIENT = np.array([0.3, -0.2, 0.5])  # per mm
SPACINGS = [0.5, 0.8, 1.0, 1.2, 1.9, 3.0]


def places(image: MetaTensor) -> np.ndarray:
    """Return the patient coordinates of every voxel, (W, H, D, 3)."""
    indices = np.stack(np.meshgrid(*map(range, image.shape[1:]), indexing="ij"), axis=-1)
    return nib.affines.apply_affine(image.affine.numpy(), indices)


def ramp(affine: np.ndarray) -> MetaTensor:
    image = MetaTensor(torch.zeros(1, *SHAPE), affine=affine)
    image[0] = torch.as_tensor(places(image) @ GRADIENT)
    return image


def resample(image: MetaTensor, spacing: float, mode: str = "bilinear") -> MetaTensor:
    return ResampleSlicesd("image", spacing=spacing, mode=mode)({"image": image})["image"]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_ramp_stays_the_same_function_of_millimeters(affine: np.ndarray, spacing: float) -> None:
    result = resample(ramp(affine), spacing)
    width, height, depth = result.shape[1:]
    assert (width, height, depth) == (round(48 * 0.8 / spacing), round(36 * 1.2 / spacing), 3)
    extent = np.array(result.shape[1:]) * np.linalg.norm(result.affine.numpy()[:3, :3], axis=0)
    assert np.allclose(extent, np.array(SHAPE) * np.linalg.norm(affine[:3, :3], axis=0))  # the same box in the patient
    wrong = np.abs(result[0].numpy() - places(result) @ GRADIENT)
    inside = wrong[2:-2, 2:-2]
    # A digital filter that shrinks by a fraction reproduces a ramp to some hundredths of a pixel only.
    assert inside.max() < 0.06 * max(PIXEL[:2]) * np.linalg.norm(GRADIENT)
    assert abs(inside.mean()) < 0.02


@pytest.mark.parametrize("spacing", SPACINGS)
def test_slices_are_not_mixed_and_the_rim_keeps_its_value(spacing: float) -> None:
    image = MetaTensor(torch.tensor([-1.0, 1.0, -0.25]).expand(1, *SHAPE), affine=AFFINES["axial"])
    result = resample(image, spacing)
    assert np.allclose(result, image[:, :1, :1], atol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_label_takes_the_nearest_pixel(spacing: float) -> None:
    columns = torch.arange(48)[:, None, None].expand(SHAPE)
    label = MetaTensor(columns[None].to(torch.uint8), affine=np.diag([*PIXEL, 1.0]))
    result = resample(label, spacing, "nearest")
    exact = places(result)[..., 0] / 0.8  # where the new centers lie, in old columns
    assert np.abs(result[0].numpy() - exact).max() <= 0.5 + 1e-4
    assert set(result.unique().tolist()) <= set(range(48))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_invertd_restores_size_affine_and_a_smooth_image(spacing: float) -> None:
    transform = Compose([ResampleSlicesd("image", spacing=spacing)])
    image = ramp(AFFINES["tilted"])
    data = transform({"image": image})
    data["pred"] = MetaTensor(torch.cat([data["image"].as_tensor()] * 4))
    back = Invertd("pred", transform=transform, orig_keys="image", nearest_interp=False)(data)["pred"]
    assert back.shape == (4, *SHAPE)
    assert np.allclose(back.affine, image.affine)
    inside = np.abs(back[3].numpy() - image[0].numpy())[6:-6, 6:-6]
    assert inside.max() < 0.06 * max(PIXEL[:2]) * np.linalg.norm(GRADIENT) + 1e-4


@pytest.mark.parametrize("nearest", [False, True])
def test_the_way_back_is_that_of_monais_resize(nearest: bool) -> None:
    resample = ResampleSlicesd("image", spacing=1.7)
    image = MetaTensor(torch.rand(2, 20, 30, 5), affine=torch.diag(torch.tensor([1.0, 1.3, 4.0, 1.0])))
    small = resample({"image": image})
    way = {"spatial_size": (20, 30, 5), "mode": "nearest" if nearest else "trilinear"}
    expected = Resize(**way)(MetaTensor(small["image"]))
    small["pred"] = small["image"]
    back = Invertd("pred", resample, orig_keys="image", nearest_interp=nearest)(small)["pred"]
    torch.testing.assert_close(back.as_tensor(), expected.as_tensor(), rtol=0, atol=1e-6)
    torch.testing.assert_close(back.affine, image.affine)


def test_keys_have_their_own_modes() -> None:
    step = (torch.arange(48)[:, None, None] >= 24).expand(SHAPE)[None].float()
    data = {key: MetaTensor(step, affine=AFFINES["axial"]) for key in ("image", "label")}
    result = ResampleSlicesd(["image", "label"], spacing=2.0, mode=["bilinear", "nearest"])(data)
    assert result["image"].shape == result["label"].shape
    assert set(result["label"].unique().tolist()) == {0, 1}
    assert len(result["image"].unique()) > 2


@pytest.mark.parametrize(("pixel", "size"), [(400.0, "8000 x 9600"), (0.0005, "0 x 0")])
def test_a_grid_that_no_image_has_is_refused(pixel: float, size: str) -> None:
    """Not the machine's end of memory, and not one pixel for a whole slice of a microscope."""
    resample = ResampleSlicesd("image", spacing=2.5)
    image = MetaTensor(torch.zeros(1, 50, 60, 2), torch.diag(torch.tensor([pixel, pixel, 3.0, 1.0])))
    with pytest.raises(PyrasegError, match=rf"has 50 x 60 pixels of {pixel:g} x {pixel:g} mm\. At .* have {size}, "):
        resample({"image": image})
    fitting = ResampleSlicesd("image", spacing=2 * pixel)  # a model for such images
    assert fitting({"image": image})["image"].shape == (1, 25, 30, 2)


def test_what_has_no_millimeters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PyrasegError, match="has no patient position"):
        resample(MetaTensor(torch.zeros(3, 5, 4)), 1.0)
    path = write_image(tmp_path / "cr.dcm", np.zeros((5, 4), np.int16), Modality="CR")
    reader = "bundle.pyraseg.transforms.MedicalImageReader"
    projection = LoadImaged("image", reader=reader, ensure_channel_first=True)({"image": path})["image"]
    with pytest.raises(PyrasegError, match=r"cr\.dcm has no patient position .*of shape \(1, 4, 5, 1\)"):
        resample(projection, 1.0)
    with pytest.raises(PyrasegError, match="must be positive, got 0"):
        ResampleSlicesd("image", spacing=0)


@pytest.mark.parametrize("size", [(24, 50), (100, 20), (48, 36)])
def test_a_photograph_takes_the_size_asked_for_and_goes_back(size: tuple[int, int]) -> None:

    bytes_ = np.random.default_rng(0).integers(0, 255, (36, 48, 3), dtype=np.uint8)
    transform = Compose([ResizePhotographd("image", size=size)])
    data = transform({"image": MetaTensor(torch.from_numpy(bytes_).permute(2, 1, 0).float())})
    expected = Image.fromarray(bytes_).resize(size, Image.Resampling.BILINEAR)  # antialiased, as Pillow always is
    assert np.abs(data["image"].permute(2, 1, 0).numpy() - np.asarray(expected)).max() <= 1
    data["pred"] = data["image"].clone()
    back = Invertd("pred", transform=transform, orig_keys="image", nearest_interp=False)(data)["pred"]
    assert back.shape == (3, 48, 36)


def test_a_volume_is_no_photograph() -> None:
    with pytest.raises(PyrasegError, match="a volume"):
        ResizePhotographd("image", size=(8, 8))({"image": MetaTensor(torch.zeros(1, 4, 4, 4))})


@pytest.mark.parametrize("shape", [(3, 500, 333), (3, 3000, 1), (1, 1, 3000), (3, 256, 700), (3, 40, 30), (3, 1, 1)])
def test_a_photograph_is_resized_in_bands_to_the_bit(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.pyraseg.transforms.resampling.BAND", 10_000)
    channels, width, height = shape
    values = np.random.default_rng(0).integers(0, 256, (width, height, channels), dtype=np.uint8)
    image = torch.from_numpy(values).permute(2, 0, 1)  # as LoadImage leaves it
    whole = resize_rasters(image.float(), (160, 256), mode="bilinear", antialias=True)
    assert torch.equal(shrink_photograph(image, (160, 256)), whole)

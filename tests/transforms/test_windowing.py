# SPDX-License-Identifier: Apache-2.0
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Flip, ScaleIntensityRangePercentiles
from pydicom import dcmread
from pydicom.pixels import apply_rescale, apply_windowing

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.luts import VoiLut, VoiWindow, read_voi
from bundle.pyraseg.transforms.windowing import PRESETS, Windowd


def image(values: list[float], **meta: object) -> MetaTensor:
    """Return a (1, n, 1) slice with these values."""
    return MetaTensor(torch.tensor(values, dtype=torch.float32)[None, :, None], meta=meta)


def volume(n_slices: int, **meta: object) -> MetaTensor:
    """Return (1, 2, 3, n_slices) of 100 HU."""
    return MetaTensor(torch.full((1, 2, 3, n_slices), 100.0), meta=meta)


def window(item: object, data: MetaTensor, **options: object) -> MetaTensor:
    return Windowd("image", windows=item, **options)({"image": data})["image"]


def values_of(result: MetaTensor) -> list[float]:
    return pytest.approx(result.flatten().tolist(), abs=1e-6)


# --- values, worked by hand from PS3.3 C.11.2.1.2 ---


def test_linear_window_by_hand() -> None:
    # Center 40, width 400: black up to 39.5 - 199.5 = -160, white from 239, middle gray at 39.5.
    result = window({"center": 40, "width": 400}, image([-1024, -160, 39.5, 139.25, 239, 3000]))
    assert values_of(result) == [0, 0, 0.5, 0.75, 1, 1]
    assert result.dtype == torch.float32


def test_function_is_passed_on() -> None:
    # LINEAR_EXACT, center 40, width 400: from -160 to 240 without the half-unit shift. SIGMOID at the center: 1/2.
    exact = window({"center": 40, "width": 400, "function": "LINEAR_EXACT"}, image([-160, 40, 140, 240]))
    assert values_of(exact) == [0, 0.5, 0.75, 1]
    assert values_of(window({"center": 40, "width": 400, "function": "SIGMOID"}, image([40.0]))) == [0.5]


def test_preset_is_its_center_and_width() -> None:
    data = image([-1350.0, -600.5, -300.8, 149.0])
    assert values_of(window("lung", data)) == [0, 0.5, 299.7 / 1499 + 0.5, 1]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_a_source(name: str) -> None:
    _, width, source = PRESETS[name]
    assert width > 1
    assert "doi:10." in source


def test_three_windows_become_channels_in_their_order() -> None:
    data = image([-600.5, 49.5, 399.5])
    result = window(["lung", "mediastinum", "bone"], data)
    assert result.shape == (3, 3, 1)
    for channel, own in enumerate([-600.5, 49.5, 399.5]):
        assert result[channel, [-600.5, 49.5, 399.5].index(own), 0] == pytest.approx(0.5)
    assert result[0, 2, 0] == 1 and result[2, 0, 0] == 0
    assert window(["lung", "bone"], volume(4)).shape == (2, 2, 3, 4)


def test_output_range() -> None:
    result = window({"center": 40, "width": 400}, image([-1000, 39.5, 1000]), output_range=(-1.0, 1.0))
    assert values_of(result) == [-1, 0, 1]


def test_header_window_of_a_real_slice_is_that_of_pydicom(real_data: Path) -> None:
    files = sorted((real_data / "ct_liver_dicom_seg" / "ct-3slice").glob("*.dcm"))
    dataset = dcmread(files[0])
    units = apply_rescale(dataset.pixel_array, dataset)
    expected = apply_windowing(units, dataset)
    low, high = apply_windowing(np.array([-1e6, 1e6]), dataset)
    data = MetaTensor(torch.from_numpy(units.T.astype(np.float32))[None], meta={"voi": [read_voi(dataset)]})
    result = window("header", data)
    assert 0.05 < result.float().mean() < 0.95
    assert np.allclose(result[0].numpy().T, (expected - low) / (high - low), atol=1e-5)


# --- percentiles ---


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize("percentiles", [(1, 99), (0, 100), (0.5, 90)])
def test_percentiles_are_those_of_monai(scale: float, percentiles: tuple[float, float]) -> None:
    data = MetaTensor(scale * torch.from_numpy(np.random.default_rng(0).gamma(2, 1, (1, 9, 8, 7))).float())
    result = window({"percentiles": list(percentiles)}, data, output_range=(-1.0, 1.0))
    expected = ScaleIntensityRangePercentiles(*percentiles, -1, 1, clip=True)(data)
    assert torch.allclose(result, expected, atol=1e-5)
    assert result.min() == pytest.approx(-1) and result.max() == pytest.approx(1)


def test_percentiles_by_hand() -> None:
    # Of 0, 1 ... 100 the 10th percentile is 10 and the 90th 90: the middle lies at 50, a quarter at 30.
    result = window({"percentiles": [10, 90]}, image(list(range(101))))
    assert result[0, [0, 10, 30, 50, 90, 100], 0].tolist() == pytest.approx([0, 0, 0.25, 0.5, 1, 1])


def test_a_constant_image_is_gray() -> None:
    assert values_of(window({"percentiles": [1, 99]}, image([7.0, 7.0, 7.0]))) == [0.5, 0.5, 0.5]


def test_percentiles_are_inverted_too() -> None:
    assert values_of(window({"percentiles": [0, 100]}, image([0.0, 1.0, 4.0], inverted=True))) == [1, 0.75, 0]


@pytest.mark.parametrize("percentiles", [[99, 1], [50, 50], [-1, 99], [1, 101], [1], [1, 50, 99], 5, ["a", "b"]])
def test_refused_percentiles(percentiles: object) -> None:
    with pytest.raises(PyrasegError, match="two numbers from 0 to 100, the smaller one first"):
        Windowd("image", windows={"percentiles": percentiles})
    with pytest.raises(PyrasegError, match="is not understood"):
        Windowd("image", windows={"percentiles": [1, 99], "center": 40})


# --- polarity ---


def test_inverts_exactly_once() -> None:
    data = image([-1000, 139.25, 1000], inverted=True, voi=[(VoiWindow(40, 400),)])
    once = window("header", data, output_range=(0.0, 255.0))
    assert values_of(once) == [255, 0.25 * 255, 0]
    assert once.meta["inverted"] is False
    again = window({"center": 128, "width": 255, "function": "LINEAR_EXACT"}, once)
    assert values_of(again) == [(255 - 0.5) / 255, (63.75 - 0.5) / 255, 0]
    assert data.meta["inverted"] is True and "voi" in data.meta  # the input is left alone


def test_output_range_is_inverted_within_itself() -> None:
    assert values_of(window("bone", image([-2000, 2000], inverted=True), output_range=(-1.0, 3.0))) == [3, -1]


def test_result_collates() -> None:
    first = window("bone", image([1.0], inverted=True, voi=[(VoiWindow(40, 400), VoiLut(0, 8, (0, 255)))]))
    second = window("bone", image([2.0], inverted=False, voi=[()]))
    assert list_data_collate([{"image": first}, {"image": second}])["image"].shape == (2, 1, 1, 1)


# --- the header's windows ---


def test_header_windows_vary_by_slice() -> None:
    # 100 HU in LINEAR_EXACT windows of width 400 centerd at 100, 200 and 0: 1/2, 1/4 and 3/4.
    voi = [(VoiWindow(c, 400, "LINEAR_EXACT"), VoiWindow(100, 400, "LINEAR_EXACT")) for c in (100, 200, 0)]
    result = window("header", volume(3, voi=voi))
    assert [result[..., k].unique().tolist() for k in range(3)] == [[0.5], [0.25], [0.75]]
    assert window("header:1", volume(3, voi=voi)).unique().tolist() == [0.5]


def test_some_slices_are_those_of_the_whole() -> None:
    values = torch.rand(1, 5, 4, 40, generator=torch.Generator().manual_seed(0)) * 300 - 100
    voi = [({"center": float(place), "width": 50.0},) for place in range(40)]
    image = MetaTensor(values, meta={"voi": voi, "inverted": True})
    chain = Windowd("image", windows=["header", "soft_tissue", {"percentiles": [5, 90]}], output_range=(-1, 1))
    whole = chain.apply(image)
    assert torch.equal(chain.apply(image, slices=[33, 2, 3]), whole[..., [33, 2, 3]])
    for place in (2, 33):  # each by its own window, upside down
        expected = 1 - ((values[0, ..., place] - (place - 0.5 - 24.5)) / 49).clamp(0, 1) * 2
        torch.testing.assert_close(whole[0, ..., place].as_tensor(), expected, atol=1e-5, rtol=0)


def test_header_lookup_table() -> None:
    # Values 10, 11, 12, 13 map to 0, 51, 204, 255 of 8 bits; outside, the ends hold.
    data = image([-5, 10, 11, 12, 99], voi=[(VoiLut(10, 8, (0, 51, 204, 255)),)])
    assert values_of(window("header", data)) == [0, 0, 0.2, 0.8, 1]


def test_one_window_for_all_slices_survives_resampling() -> None:
    data = volume(5, voi=[(VoiWindow(100, 400, "LINEAR_EXACT"),)] * 3)
    assert window("header", data).unique().tolist() == [0.5]


@pytest.mark.parametrize(("axis", "expected"), [(0, [0.5, 0.25, 0.75]), (1, [0.5, 0.25, 0.75]), (2, [0.75, 0.25, 0.5])])
def test_varying_windows_follow_reversed_slices(axis: int, expected: list[float]) -> None:
    affine = np.diag([0.7, 0.7, 2.5, 1.0])
    voi = [(VoiWindow(c, 400, "LINEAR_EXACT"),) for c in (100, 200, 0)]
    data = MetaTensor(torch.full((1, 2, 3, 3), 100.0), meta={"voi": voi, "affine": affine, "original_affine": affine})
    result = window("header", Flip(spatial_axis=axis)(data))
    assert result[0, 0, 0].tolist() == expected


@pytest.mark.parametrize(("n_slices", "affine"), [(5, np.eye(4)), (2, np.eye(4)[[0, 2, 1, 3]])])
def test_varying_windows_refuse_other_slices(n_slices: int, affine: np.ndarray) -> None:
    data = volume(n_slices, voi=[(VoiWindow(c, 400),) for c in (0, 100)], original_affine=np.eye(4), affine=affine)
    with pytest.raises(PyrasegError, match="Put Windowd before transforms that resample"):
        window("header", data)


def test_varying_windows_refuse_a_slice_cut_from_a_volume() -> None:
    with pytest.raises(PyrasegError, match="Put Windowd before"):
        window("header", MetaTensor(torch.zeros(1, 4, 2), meta={"voi": [(VoiWindow(c, 400),) for c in (0, 100)]}))


def test_windows_may_be_mappings() -> None:
    views = (asdict(VoiWindow(40, 400, "LINEAR_EXACT")), asdict(VoiLut(10, 8, (0, 51, 255))))
    data = image([11.0, 140.0], voi=[views])
    assert values_of(window("header", data)) == [171 / 400, 0.75]
    assert values_of(window("header:1", data)) == [0.2, 1]


@pytest.mark.parametrize(
    ("item", "voi", "found"),
    [("header", None, "has 0 "), ("header", [()], "has 0 "), ("header:1", [(VoiWindow(40, 400),)], "has 1 ")],
)
def test_missing_header_window(item: str, voi: object, found: str) -> None:
    meta = {"filename_or_obj": "series/1.dcm"} | ({} if voi is None else {"voi": voi})
    with pytest.raises(PyrasegError, match=rf"series/1.dcm {found}.*Name a preset \(abdomen, .*\) or give a center"):
        window(item, image([1.0], **meta))


def test_for_processing_has_no_display_window() -> None:
    data = image([1.0], for_processing=True, voi=[(VoiWindow(40, 400),)])
    with pytest.raises(PyrasegError, match=r"FOR PROCESSING.*from its values"):
        window("header", data)
    assert window({"center": 1, "width": 2}, data).shape == (1, 1, 1)  # an explicit window is an explicit choice


# --- refusals ---


def test_unknown_preset_names_the_nearest_and_the_rest() -> None:
    with pytest.raises(PyrasegError, match=r"no window 'livr'\. The presets are abdomen, .* name is 'liver'"):
        Windowd("image", windows=["lung", "livr"])


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([], "windows is empty"),
        ({"center": 40}, "is not understood"),
        ({"center": 40, "width": 400, "level": 1}, "is not understood"),
        ({"center": 40, "width": 0}, "width 0 is not possible"),
        ({"center": 40, "width": 400, "function": "CUBIC"}, "'CUBIC' is unknown"),
        ([[40, 400]], "no window"),
        ("header:x", "no window 'header:x'.*The nearest name is 'header'"),
    ],
)
def test_refuses_what_is_no_window(windows: object, message: str) -> None:
    with pytest.raises(PyrasegError, match=message):
        Windowd("image", windows=windows)


def test_color_is_refused() -> None:
    with pytest.raises(PyrasegError, match=r"photo.png is in color \(shape \(3, 4, 5\)\)"):
        window("lung", MetaTensor(torch.zeros(3, 4, 5), meta={"filename_or_obj": "photo.png"}))


def test_plain_tensors_and_missing_keys() -> None:
    result = Windowd(["image", "other"], windows="lung", allow_missing_keys=True)({"image": torch.zeros(1, 4, 5)})
    assert type(result["image"]) is torch.Tensor
    assert set(result) == {"image"}

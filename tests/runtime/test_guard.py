# SPDX-License-Identifier: Apache-2.0
"""How far an image is from those of a training, what is done about it, and that the bundle and the runtime agree."""

import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from monai.data import MetaTensor
from monai.transforms import LoadImaged
from PIL import Image

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.inference import PROPERTY, ImageGuard
from bundle.pyraseg.runtime import Guard, Model, Watch, image_statistics, main, planes_of, segment
from bundle.pyraseg.runtime.statistics import EDGES, GRID
from bundle.pyraseg.transforms import MedicalImageReader
from tests.helpers.commands import ROOT
from tests.helpers.dicom_files import write_image
from tests.helpers.exported import Exported
from tests.helpers.guards import made_up_guard
from tests.helpers.onnx_paths import WINDOWS, photograph, projection, volume
from tests.helpers.runtime_series import series

#: Statistics of three numbers, so that a distance can be computed by hand.
FLAT = Guard(np.zeros(3), np.ones(3), np.eye(3)[:2], np.array([4.0, 1.0]), residual=2.0, threshold=0.5)


def test_the_distance_is_that_of_the_formula():
    found = FLAT.distances(np.array([[2.0, 1, 0], [0, 0, 2], [4, 3, 2]]))
    by_hand = [(1 + 1) / 2, 4 / 2, (4 + 9) / 2 + 2]  # along the axes, by their number; beside them, by the residual
    np.testing.assert_allclose(found, np.sqrt(np.array(by_hand) / 2))


def test_the_planes_of_an_image_count_by_their_median():
    near, far = np.zeros(3), np.array([0, 0, 20.0])
    assert FLAT.unlike([near, near, far]) == 0
    assert FLAT.unlike([near, far, far]) == pytest.approx(np.sqrt(400 / 2 / 2) / 0.5)
    assert FLAT.unlike([np.full(3, np.nan)]) == np.inf


def test_the_text_holds_all_of_a_guard_and_is_small():
    guard = made_up_guard(9, threshold=1.25)
    read = Guard.read(guard.text, "here")
    for name in ("center", "scale", "axes", "variances"):
        np.testing.assert_array_equal(getattr(read, name), getattr(guard, name))
    assert (read.residual, read.threshold, read.text) == (2.0, 1.25, guard.text)
    later = json.dumps({**json.loads(guard.text), "format": 3})
    with pytest.raises(PyrasegError, match="The guard in here is of form 3, and this program knows form 2"):
        Guard.read(later, "here")


def test_statistics_of_what_is_known():
    columns = np.linspace(-1, 1, 256, dtype=np.float32)
    ramp = np.repeat(columns[None, :, None], 200, axis=2)  # brighter along W
    thumbnail, quantiles, spectra, gradients = np.split(image_statistics(ramp), np.cumsum([64, 13, 20]))
    middles = columns.reshape(8, -1).mean(axis=1)
    np.testing.assert_allclose(thumbnail.reshape(8, 8), np.repeat(middles[:, None], 8, axis=1), atol=0.01)
    assert (np.diff(quantiles) > 0).all() and abs(quantiles[6]) < 0.02
    along, across = spectra[:10], spectra[10:]  # lines at one place of W are constant
    np.testing.assert_allclose(along, np.log(1e-4), atol=1e-3)
    assert across[0] > across[3] > along[0]
    by_direction = gradients.reshape(16, 8)
    assert (by_direction[:, 0] > 0).all() and not by_direction[:, 1:].any()


def test_a_wave_is_in_the_band_of_its_frequency():
    frequency = 0.1
    wave = np.sin(2 * np.pi * frequency * np.arange(256, dtype=np.float32))
    image = np.repeat(wave[None, None], 256, axis=1)  # along H
    along, across = np.split(image_statistics(image)[77:97], 2)
    assert along.argmax() == np.searchsorted(EDGES, frequency) - 1
    np.testing.assert_allclose(across, np.log(1e-4), atol=1e-3)


def test_an_image_of_any_size_has_statistics():
    for size in ((1, 1), (3, 700), (GRID, 5)):
        assert np.isfinite(image_statistics(np.zeros((2, *size), np.float32))).all()


def test_planes_are_spread_over_a_volume():
    assert planes_of(1) == [0] and planes_of(16) == list(range(16))
    assert len(planes_of(17)) == 16 and planes_of(160) == list(range(5, 160, 10))


def test_it_costs_a_small_part_of_the_fastest_network():
    """It is measured as less than 5 % (docs/guard.md); four times as much passes, for other programs run as well."""
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8)
    image, guard = np.ascontiguousarray(pixels.transpose(2, 1, 0) / np.float32(127) - 1), made_up_guard(3)
    network = Model(ROOT / "models" / "dermoscopy_fast.int8.onnx", threads=1)

    def look() -> None:
        guard.unlike([image_statistics(image)])

    seconds: dict[str, list[float]] = {"look": [], "network": []}
    for _ in range(15):
        for name, call in (("look", look), ("network", lambda: network.classes({"image": pixels[None]}))):
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    assert min(seconds["look"]) < 0.2 * min(seconds["network"])


def looked(unlike: str, guard: Guard | None, image: np.ndarray) -> Watch:
    watch = Watch(guard, unlike, name="case 1")
    watch.look(image)
    return watch


def test_what_is_done_about_an_image_that_is_unlike_the_training(caplog):
    guard, image = made_up_guard(1, threshold=0.01), np.zeros((1, 20, 30), np.float32)
    value = guard.unlike([image_statistics(image)])
    assert value > 1 and looked("warn", guard, image).value == value
    assert f"case 1: it is unlike the images that the model was trained on, {value:.2f} times as far" in caplog.text
    caplog.clear()
    with pytest.raises(PyrasegError, match=r"it is unlike the images .* --unlike warn"):
        looked("refuse", guard, image)
    assert looked("ignore", guard, image).value is looked("refuse", None, image).value is None
    like = made_up_guard(1, threshold=2 * value * 0.01)
    assert looked("refuse", like, image).value == pytest.approx(0.5)
    assert not caplog.text


# --- the bundle and the runtime ---


def with_guard(model: Exported, folder: Path, guard: Guard) -> Path:
    """Write a model anew that carries a guard, as `pyraseg export` writes it; return its path."""
    graph = onnx.load(model.path)
    graph.metadata_props.add(key=PROPERTY, value=guard.text)
    onnx.save(graph, folder / "guarded.onnx")
    return folder / "guarded.onnx"


def of_bundle(folder: Path, guard: Guard, shown: MetaTensor) -> float | None:
    """Return what the bundle finds in what the network is shown."""
    carrier = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["y"])], "none",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
        ), opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10,
    )  # fmt: skip
    carrier.metadata_props.add(key=PROPERTY, value=guard.text)
    onnx.save(carrier, folder / "carrier.onnx")
    return ImageGuard(folder / "carrier.onnx", unlike="warn").judge("it", shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "sagittal", "downwards", "oblique", "inverted"])
def test_of_a_series_both_find_the_same(name, models, tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.pyraseg.runtime.statistics.PLANES", 3)  # of 6: not all of them
    folder, chain = series(tmp_path / "in", name), volume(*WINDOWS, context_slices=1)
    guard = made_up_guard(9)
    load = LoadImaged("image", reader=MedicalImageReader(), ensure_channel_first=True)
    expected = of_bundle(tmp_path, guard, chain(load({"image": str(folder)}))["image"])
    model = Model(with_guard(models.ct, tmp_path, guard), threads=2)
    labels = segment(model, [str(file) for file in sorted(folder.iterdir())])
    assert labels.watch is not None and labels.watch.value is None  # nothing is known before the slices are
    list(labels.slices)
    assert labels.watch.value == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(guard.threshold, rel=1e-2)


@pytest.mark.parametrize("kind", ["photograph", "radiograph"])
def test_of_a_picture_both_find_the_same(kind, models, tmp_path):
    random = np.random.default_rng(1)
    shape = (70, 90, 3) if kind == "photograph" else (70, 90)
    pixels = random.integers(0, 255, shape).astype(np.uint8)
    Image.fromarray(pixels).resize((300, 200)).save(tmp_path / "in.png")
    chain = photograph() if kind == "photograph" else projection({"percentiles": [1, 99]})
    load = LoadImaged(
        "image", reader=MedicalImageReader(rgb=kind == "photograph"), ensure_channel_first=True, dtype=np.float32
    )
    guard = made_up_guard(3 if kind == "photograph" else 1)
    expected = of_bundle(tmp_path, guard, chain(load({"image": str(tmp_path / "in.png")}))["image"])
    model = Model(with_guard(getattr(models, kind), tmp_path, guard), threads=1)
    labels = segment(model, str(tmp_path / "in.png"))
    assert labels.watch is not None and labels.watch.value == pytest.approx(expected, rel=1e-4)


def test_the_runtime_refuses_one_and_goes_on_with_the_others(models, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    random = np.random.default_rng(0)
    smooth = random.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(smooth).resize((120, 90)).save(tmp_path / "in" / "smooth.png")
    Image.fromarray(random.integers(0, 255, (90, 120, 3)).astype(np.uint8)).save(tmp_path / "in" / "noise.png")
    model = Model(with_guard(models.photograph, tmp_path, made_up_guard(3)), threads=1)
    found = {}
    for name in ("smooth", "noise"):
        watch = segment(model, str(tmp_path / "in" / f"{name}.png"), name=name).watch
        found[name] = watch.value if watch else None
    unlike, like = sorted(found, key=found.__getitem__, reverse=True)
    between = np.sqrt(found[unlike] * found[like])
    path = with_guard(models.photograph, tmp_path, made_up_guard(3, threshold=between))
    assert main([str(path), str(tmp_path / "in"), str(tmp_path / "out"), "--unlike", "refuse"]) == 1
    assert [file.name for file in (tmp_path / "out").iterdir()] == [f"{like}.png"]
    assert f"{unlike}: failed, it is unlike the images that the model was trained on" in capsys.readouterr().err
    assert main([str(path), str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_series_that_is_refused_leaves_nothing(models, tmp_path, capsys):
    folder = series(tmp_path / "in")
    path = with_guard(models.ct, tmp_path, made_up_guard(9, threshold=1e-3))
    for form in ("png", "nifti"):
        words = [str(path), str(folder), str(tmp_path / form), "--format", form, "--unlike", "refuse"]
        assert main(words) == 1
        assert not list((tmp_path / form).rglob("*.*"))
        assert "it is unlike the images" in capsys.readouterr().err


def test_a_model_without_a_guard_says_so_and_segments(models, tmp_path, caplog):
    write_image(tmp_path / "in" / "one.dcm", np.arange(1200, dtype=np.int16).reshape(30, 40), Modality="DX")
    assert main([str(models.radiograph.path), str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert f"The model {models.radiograph.path} has no guard" in caplog.text

# SPDX-License-Identifier: Apache-2.0
"""`pyraseg quantize` on the included model."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SliceInferer, SlidingWindowInferer
from PIL import Image

from bundle.pyraseg.commands import quantize
from bundle.pyraseg.core import file_digest
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.inference import FlipInferer, TileInferer
from bundle.pyraseg.transforms import write_temperature

ROOT = Path(__file__).resolve().parents[2]
TRAINING = [str(ROOT / "configs" / name) for name in ("train.json", "photographs.json", "dermoscopy.json")]
INFERENCE = [
    str(ROOT / "configs" / name)
    for name in ("inference.json", "photographs_inference.json", "dermoscopy_inference.json")
]


def test_the_configs_of_inference_are_found_by_their_names():
    assert [str(path) for path in quantize.inference_configs([Path(name) for name in TRAINING])] == INFERENCE
    assert all(Path(path).is_file() for path in INFERENCE)


def test_without_a_float_network_it_says_what_to_run(tmp_path):
    with pytest.raises(PyrasegError, match=r"no model at .*none.network.onnx. Write it first: pyraseg export"):
        quantize.main([*TRAINING, "--network-file", str(tmp_path / "none.network.onnx")])


def numbered(shape: tuple[int, ...]) -> MetaTensor:
    return MetaTensor(torch.arange(float(np.prod(shape))).reshape(shape))


def places(image: MetaTensor, tiles: list[np.ndarray]) -> list[tuple[int, ...]]:
    """Return where in a numbered image tiles begin; each has the numbers that are there."""
    found = []
    for tile in tiles:
        start = np.unravel_index(int(tile.min()), image.shape)
        block = tuple(slice(begin, begin + side) for begin, side in zip(start[1:], tile.shape[2:], strict=True))
        np.testing.assert_array_equal(tile[0], image.numpy()[(slice(None), *block)])
        found.append(tuple(map(int, start[1:])))
    return found


def test_ranges_are_measured_on_what_the_network_is_shown():
    images = [numbered((1, 9, 12, 7)), numbered((1, 9, 12, 7))]

    def prepared(item: dict) -> dict:
        return {"image": images[item["image"]]}

    cases = [{"image": 0}, {"image": 1}]
    tiles = quantize.training_images(cases, prepared, TileInferer(patch_size=(6, 8, 5), overlap=0.5), 5)
    assert [tile.shape for tile in tiles] == [(1, 1, 6, 8, 5)] * 5 and tiles[0].dtype == np.float32
    corners = {(w, h, d) for w in (0, 3) for h in (0, 4) for d in (0, 2)}
    assert set(places(images[0], tiles)) <= corners and len(set(places(images[0], tiles[:3]))) == 3
    slices = quantize.training_images(cases, prepared, SliceInferer(roi_size=(-1, -1), spatial_dim=2), 4)
    assert [one.shape for one in slices] == [(1, 1, 9, 12)] * 4
    images = [numbered((3, 9, 12)), numbered((3, 9, 12))]
    assert len(quantize.training_images(cases, prepared, SimpleInferer(), 64)) == 2
    mirrored = FlipInferer(SlidingWindowInferer((4, 5), overlap=0.25, mode="gaussian"), flips=[[0]])
    shown = quantize.training_images(cases[:1], prepared, mirrored, 1000)
    upright = [tile for tile in shown if tile[0, 0, 1, 0] > tile[0, 0, 0, 0]]
    corners = [(w, h) for w in (0, 3, 5) for h in (0, 3, 6, 7)]
    assert len(shown) == 24 and sorted(places(images[0], upright)) == corners


def test_each_image_has_the_same_chance():
    random, counts = np.random.default_rng(0), np.zeros(8)
    for _ in range(400):
        sample = quantize.Sample(2, random)
        for part in torch.arange(8.0).reshape(8, 1, 1, 1).split(3):
            assert sample(part).shape == part.shape
        counts += np.bincount([int(image.item()) for image in sample.kept], minlength=8)
    assert counts.sum() == 800 and counts.min() > 70 and counts.max() < 130


def file_of(path: Path, **stated: str) -> Path:
    node = onnx.helper.make_node("Identity", ["image"], ["logits"])
    ends = [[onnx.helper.make_tensor_value_info(name, 1, ["b"])] for name in ("image", "logits")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", *ends))
    onnx.helper.set_model_props(model, stated)
    onnx.save(model, path)
    return path


def test_what_is_missing_or_of_others_is_exported_first(tmp_path, monkeypatch, capsys):
    weights, network, path = (tmp_path / name for name in ("a.pt", "a.network.onnx", "a.onnx"))
    weights.write_bytes(b"new")
    exported = []
    monkeypatch.setattr(quantize, "write", lambda *parts, about: exported.append(parts[2:4]))
    monkeypatch.setattr(quantize, "recipe_of_config", lambda config: SimpleNamespace(text="new"))

    def told(path_file: Path | None = path) -> str:
        quantize.export_outdated(ConfigParser(), weights, network, path_file, {})
        return capsys.readouterr().out

    assert "There is no " in told() and exported.pop() == (network, path)
    file_of(network, weights_sha256=file_digest(weights))
    assert told(None) == "" and not exported  # no whole path is wanted
    assert "There is no " in told() and exported.pop() == (network, path)
    file_of(path, weights_sha256=file_digest(weights), recipe="old", temperature="1.0", threshold="")
    assert "a.onnx was exported with other settings" in told() and exported.pop() == (network, path)
    file_of(path, weights_sha256=file_digest(weights), recipe="new", temperature="1.0", threshold="0.3")
    assert told() == "" and not exported
    weights.write_bytes(b"newer")
    with pytest.raises(PyrasegError, match=r"a.network.onnx is of other weights than .*has the threshold 0.3"):
        told()
    file_of(path, weights_sha256=file_digest(weights), recipe="new", temperature="1.0", threshold="")
    assert "a.network.onnx is of other weights than" in told() and exported.pop() == (network, path)
    file_of(network, weights_sha256=file_digest(weights))
    file_of(path, weights_sha256=file_digest(weights), recipe="new", temperature="1.0", threshold="")
    assert told() == "" and not exported
    write_temperature(weights, 1.5)
    assert "a.onnx has another temperature than the one beside" in told() and exported.pop() == (network, path)
    weights.unlink()
    assert told() == "" and not exported  # nothing says that the files are old


@pytest.fixture(scope="module")
def exported(real_data, tmp_path_factory) -> tuple[Path, Path]:
    """Quantize the model, which exports it; return the folder of the files, and that of some photographs."""
    folder = tmp_path_factory.mktemp("int8")
    (folder / "models").mkdir()
    shutil.copy(ROOT / "models" / "dermoscopy.pt", folder / "models")
    source, data = real_data / "dermoscopy_isic2017", folder / "data"
    names = sorted(path.stem for path in (source / "images").glob("*.jpg"))[:40]
    for part, suffix in (("images", ".jpg"), ("masks", "_segmentation.png")):
        (data / part).mkdir(parents=True)
        for name in names:
            shutil.copy(source / part / f"{name}{suffix}", data / part)
    items = [
        {"image": f"images/{name}.jpg", "label": f"masks/{name}_segmentation.png", "patient": name} for name in names
    ]
    parts = {"training": items[:24], "validation": items[24:36], "test": items[36:]}
    (data / "datalist.json").write_text(json.dumps(parts))
    weights = str(folder / "models" / "dermoscopy.pt")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        quantize.main([*TRAINING, "--model_file", weights, "--dataset-dir", str(data), "--images", "24"])
    (folder / "said.txt").write_text(said.getvalue())
    return folder / "models", data


@pytest.mark.slow
@pytest.mark.timeout(900)  # what it waits for exports, quantizes and judges
def test_the_model_that_comes_along_passes_the_gate(exported):
    models, _ = exported
    said = (models.parent / "said.txt").read_text()
    assert "There is no " in said and "Exporting " in said
    assert "on 12 validation cases" in said and "Written: " in said
    sizes = {path.name: path.stat().st_size for path in models.iterdir()}
    assert sizes["dermoscopy.int8.onnx"] < sizes["dermoscopy.onnx"] / 3
    about = {item.key: item.value for item in onnx.load(models / "dermoscopy.int8.onnx").metadata_props}
    assert about["precision"] == "int8" and about["class_names"] == '["background", "lesion"]'
    equal = []
    for file in sorted((models.parent / "data" / "images").iterdir())[-4:]:
        photograph = np.array(Image.open(file).resize((300, 200)))[None]
        found = [
            onnxruntime.InferenceSession(models / name).run(["classes"], {"image": photograph})[0]
            for name in ("dermoscopy.onnx", "dermoscopy.int8.onnx")
        ]
        assert found[0].shape == found[1].shape == (1, 200, 300)
        equal.append((found[0] == found[1]).mean())
    assert np.mean(equal) > 0.99


@pytest.mark.slow
def test_ranges_of_dark_images_are_refused_and_the_layers_named(exported, tmp_path, monkeypatch):
    models, data = exported
    network = tmp_path / "dermoscopy.network.onnx"
    shutil.copy(models / network.name, network)
    honest = quantize.training_images
    monkeypatch.setattr(quantize, "training_images", lambda *args: [image / 100 for image in honest(*args)])
    with pytest.raises(PyrasegError, match=r"did not pass: Dice .* Layers that change most .*encoder.*Nothing was wri"):
        quantize.main([*TRAINING, "--dataset-dir", str(data), "--network-file", str(network), "--images", "4"])
    assert [path.name for path in tmp_path.iterdir()] == [network.name]

# SPDX-License-Identifier: Apache-2.0
"""Of a series in any orientation the runtime gives the labels that the bundle gives, with a network in 3-D."""

import json
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import SlidingWindowInferer
from monai.transforms import Activationsd, Compose, FillHolesd, Invertd, LoadImaged

from bundle.pyraseg.commands.quantize import Sample
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.deployment import Decision, Parts, describe, export, quantize
from bundle.pyraseg.deployment.onnx_network import OnnxNetwork
from bundle.pyraseg.deployment.volume_recipe import read_volume_recipe
from bundle.pyraseg.inference import TileInferer, VolumeSlabInferer
from bundle.pyraseg.runtime.__main__ import main
from bundle.pyraseg.transforms import (
    InvertArgmaxd,
    MedicalImageReader,
    OrientVolumesd,
    RequireFinited,
    ResampleVolumesd,
    TidyLabelsd,
    Windowd,
)
from tests.helpers.exported import PROPERTIES
from tests.helpers.runtime_series import SERIES, gray, png, series
from tests.inference.test_volume_inferer import Convolutions

PATCH = (24, 20, 12)
FLIPS = [[0], [1, 2]]
#: What every volume network takes; the others of `SERIES` are refused, see below.
VOLUMES = [name for name in SERIES if name not in ("tilted", "with a gap")]
CHOICES = {
    "a fixed window": {"windows": [{"center": 20, "width": 700}]},
    "percentiles": {"windows": [{"percentiles": [1, 99]}]},
    "a window of the header": {"windows": ["header"]},
    "finer along the slices alone": {"windows": [{"center": 20, "width": 700}], "spacing": (1.3, 0.9, 1.0)},
}


@dataclass(frozen=True)
class Trained:
    """A network with what a config has around it."""

    network: torch.nn.Module
    preprocessing: Compose
    inferer: TileInferer
    after: Compose

    def labels(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return the bundle's labels as displayed, (slices, rows, columns), and by how much each class is ahead."""
        load = LoadImaged("image", reader=MedicalImageReader(), ensure_channel_first=True)
        item = self.preprocessing(load({"image": str(folder)}))
        batch = list_data_collate([item])["image"]
        found = VolumeSlabInferer(self.inferer, postprocessing=self.after, classes=3)(batch, self.network)[0, 0]
        windows = SlidingWindowInferer(PATCH, 1, 0.5, "gaussian", padding_mode="replicate")
        logits = windows(batch, self.mirrored)[0]
        invert = Compose(
            [Activationsd("pred", softmax=True), Invertd("pred", self.preprocessing, "image", nearest_interp=False)]
        )
        probabilities = invert({**item, "pred": MetaTensor(logits)})["pred"].as_tensor()
        first, second = probabilities.topk(2, dim=0).values
        return found.as_tensor().numpy().T, (first - second).numpy().T

    def mirrored(self, image: torch.Tensor) -> torch.Tensor:
        total = self.network(image)
        for axes in self.inferer.flips:
            dims = [axis + 2 for axis in axes]
            total = total + self.network(image.flip(dims)).flip(dims)
        return total / (1 + len(self.inferer.flips))

    def export(self, folder: Path) -> Path:
        parts = Parts(self.network, 1, 3, self.preprocessing, self.inferer, self.after, "volume")
        files = folder / "small.network.onnx", folder / "small.onnx"
        agreements = export(parts, *files, properties=PROPERTIES)
        assert all(one.logit_error < 1e-5 for one in agreements.values())
        return files[1]

    def around(self, graph: Path, path: Path) -> Path:
        """Write the graph of the same network with this recipe; to export takes seconds."""
        proto = onnx.load(graph)
        (recipe,) = (item for item in proto.metadata_props if item.key == "recipe")
        recipe.value = read_volume_recipe(self.preprocessing, self.inferer, self.after).text
        onnx.save(proto, path)
        return path


def trained(windows: list, spacing: tuple[float, ...] = (1.2, 1.4, 1.7), flips: list | None = None) -> Trained:
    chain = Compose(
        [
            Windowd("image", windows=windows, output_range=(-1, 1)),
            OrientVolumesd("image"),
            ResampleVolumesd("image", spacing=spacing),
        ]
    )
    after = Compose(
        [
            RequireFinited("pred"),
            Activationsd("pred", softmax=True),
            InvertArgmaxd("pred", transform=chain, orig_keys="image"),
        ]
    )
    return Trained(Convolutions(3).eval(), chain, TileInferer(patch_size=PATCH, flips=flips or []), after)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    made = trained(CHOICES["a fixed window"]["windows"], flips=FLIPS)
    return made, made.export(tmp_path_factory.mktemp("model"))


def run(model: Path, source: Path, output: Path, *options: str) -> int:
    return main([str(model), str(source), str(output), "--threads", "1", *options])


@torch.no_grad()
def check(made: Trained, folder: Path, found: np.ndarray) -> None:
    """Labels may differ only where the two largest probabilities are the same but for rounding."""
    expected, margin = made.labels(folder)
    assert found.dtype == np.uint8 and found.shape == expected.shape == gray().shape
    assert len(np.unique(expected)) == 3
    assert (margin[found != expected] < 1e-4).all()
    assert (found == expected).mean() > 0.999


@pytest.mark.parametrize("name", VOLUMES)
def test_a_series(name: str, model: tuple[Trained, Path], tmp_path: Path) -> None:
    folder = series(tmp_path / "in", name)
    assert run(model[1], folder, tmp_path / "out") == 0
    check(model[0], folder, png(tmp_path / "out" / "in_labels"))


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", ["plain", "sagittal", "inverted", "downwards"])
def test_windows_and_spacings(choice: str, name: str, model: tuple[Trained, Path], tmp_path: Path) -> None:
    made = trained(**CHOICES[choice])
    path = made.around(model[1], tmp_path / "other.onnx")
    header = {"per_slice": lambda k: {"WindowCenter": 40 + 9 * k, "WindowWidth": 600}}
    folder = series(tmp_path / "in", name, **(header if choice == "a window of the header" else {}))
    assert run(path, folder, tmp_path / "out") == 0
    check(made, folder, png(tmp_path / "out" / "in_labels"))


def test_a_segmentation_has_the_labels_on_their_slices(model: tuple[Trained, Path], tmp_path: Path) -> None:
    folder = series(tmp_path / "in", "sagittal", PatientBirthDate="", PatientSex="", AccessionNumber="", StudyID="")
    assert run(model[1], folder, tmp_path / "out", "--format", "seg") == 0
    assert run(model[1], folder, tmp_path / "out", "--format", "png") == 0
    seg = hd.seg.segread(tmp_path / "out" / "in_seg.dcm")
    uids = seg.get_source_image_uids()
    assert len(uids) == len(gray())
    values = seg.get_pixels_by_source_instance([uid for *_, uid in uids], combine_segments=True)
    expected = {values.tobytes() for values in png(tmp_path / "out" / "in_labels")}
    assert {plane.tobytes() for plane in values.astype(np.uint8)} == expected


@pytest.mark.parametrize(("name", "reason"), [("tilted", "tilted by"), ("with a gap", "mm apart")])
def test_no_volume_is_refused_with_the_way_out(
    name: str, reason: str, model: tuple[Trained, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model[1], series(tmp_path / "in", name), tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert reason in message and "task for slices" in message


def test_a_network_that_is_not_finite_makes_no_labels(
    model: tuple[Trained, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = onnx.load(model[1])
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor) * np.float32(1e30)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, tmp_path / "large.onnx")
    assert run(tmp_path / "large.onnx", series(tmp_path / "in"), tmp_path / "out") == 1
    assert "NaN or infinite" in capsys.readouterr().err


def test_what_the_file_says(model: tuple[Trained, Path]) -> None:
    about = {item.key: item.value for item in onnx.load(model[1]).metadata_props}
    recipe = json.loads(about["recipe"])
    assert about["content"] == "tiles" and recipe["image_kind"] == "volume"
    assert (recipe["patch_size"], recipe["overlap"], recipe["spacing"]) == (list(PATCH), 0.5, [1.2, 1.4, 1.7])
    assert recipe["tta_flips"] == FLIPS and recipe["windows"][0]["center"] == 20
    sides = [axis.dim_param for axis in onnx.load(model[1]).graph.input[0].type.tensor_type.shape.dim]
    assert sides[0] and all(sides[2:])  # names, no numbers: any size


@torch.no_grad()
def test_the_network_alone_takes_the_place_of_that_in_pytorch(model: tuple[Trained, Path]) -> None:
    network = OnnxNetwork(model[1].with_name("small.network.onnx"), threads=1, settings=None, remedy="")
    image = torch.rand(1, 1, 31, 22, 17)
    torch.testing.assert_close(network(image), model[0].network(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["plain", "sagittal"])
@torch.no_grad()
def test_what_is_tidied_up(name: str, model: tuple[Trained, Path], tmp_path: Path) -> None:
    plain = model[0]
    tidy = TidyLabelsd("pred", class_names=["background", "a", "b"], keep_largest=["a", "b"], min_size=40)
    made = Trained(plain.network, plain.preprocessing, plain.inferer, Compose([*plain.after.transforms, tidy]))
    folder = series(tmp_path / "in", name)
    assert run(made.around(model[1], tmp_path / "tidied.onnx"), folder, tmp_path / "out") == 0
    found = png(tmp_path / "out" / "in_labels")
    load = LoadImaged("image", reader=MedicalImageReader(), ensure_channel_first=True)
    batch = list_data_collate([made.preprocessing(load({"image": str(folder)}))])["image"]
    inferer = VolumeSlabInferer(made.inferer, postprocessing=made.after, classes=3)
    (labels,) = decollate_batch(inferer(batch, made.network))
    expected = inferer.rest({"pred": labels})["pred"]
    assert (found == expected[0].numpy().T).mean() > 0.999
    assert not torch.equal(expected, labels)


def test_in_int8_the_runtime_gives_what_the_bundle_gives(model: tuple[Trained, Path], tmp_path: Path) -> None:
    made, path = model
    folder = series(tmp_path / "in")
    image = made.preprocessing(
        LoadImaged("image", reader=MedicalImageReader(), ensure_channel_first=True)({"image": str(folder)})
    )["image"]
    shown = Sample(6, np.random.default_rng(0))
    made.inferer(image[None], shown)
    int8 = quantize(path.with_name("small.network.onnx"), shown.kept, shown.kept, enough=0)
    assert int8.agreement > 0.9
    assert {item.data_type for item in int8.model.graph.initializer} >= {onnx.TensorProto.INT8}
    files = tmp_path / "int8.network.onnx", tmp_path / "int8.onnx"
    onnx.save(int8.model, files[0])
    about = {item.key: item.value for item in onnx.load(path).metadata_props}
    onnx.save(ir.to_proto(describe(ir.from_proto(int8.model), about)), files[1])
    assert run(files[1], folder, tmp_path / "out") == 0
    found = png(tmp_path / "out" / "in_labels")
    network = OnnxNetwork(files[0], threads=1, settings=None, remedy="")
    check(Trained(network, made.preprocessing, made.inferer, made.after), folder, found)
    in_float, _ = made.labels(folder)
    assert 0.9 < (found == in_float).mean() < 1


def test_what_the_runtime_does_not_do_is_refused(tmp_path: Path) -> None:
    made = trained(["soft_tissue"])
    parts = Parts(made.network, 1, 2, made.preprocessing, made.inferer, made.after, "volume")
    with pytest.raises(PyrasegError, match="A threshold is for whole images and slices"):
        export(parts, tmp_path / "a", tmp_path / "b", properties=PROPERTIES, decision=Decision(1.0, 0.5))
    tidied = Trained(
        made.network, made.preprocessing, made.inferer, Compose([*made.after.transforms, FillHolesd("pred")])
    )
    with pytest.raises(PyrasegError, match="FillHoles"):
        tidied.export(tmp_path)
    other = Trained(made.network, Compose(made.preprocessing.transforms[1:]), made.inferer, made.after)
    with pytest.raises(PyrasegError, match="does not know the preprocessing OrientVolumesd, ResampleVolumesd"):
        other.export(tmp_path)

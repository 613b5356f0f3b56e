# SPDX-License-Identifier: Apache-2.0
"""Whole paths as graphs compute what the bundle's own transforms and inferers compute, whatever the recipe."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.transforms import Compose, FillHolesd, ScaleIntensityd
from torch import Tensor, nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.deployment.agreement import LOGIT_TOLERANCE, Agreement, compare_path
from bundle.pyraseg.deployment.examples import examples
from bundle.pyraseg.deployment.exporting import Parts, export, network_model, path_model
from bundle.pyraseg.deployment.recipe import Decision, Recipe
from bundle.pyraseg.deployment.reference import Reference
from bundle.pyraseg.runtime.model import open_session
from tests.helpers.onnx_paths import WINDOWS, Convolutions, network, photograph, projection, recipe_of, steps, volume
from tests.helpers.some import some_slow

PLAIN = Decision()


def graph(recipe: Recipe, decision: Decision = PLAIN, classes: int = 3) -> onnx.ModelProto:
    model = network_model(network(recipe.channels, classes), recipe.channels)
    return ir.to_proto(path_model(model, recipe, decision))


def agreement(preprocessing: Compose, flips: list | None = None, decision: Decision = PLAIN, classes=3) -> Agreement:
    parts = steps(preprocessing, flips)
    recipe = recipe_of(*parts)
    reference = Reference(network(recipe.channels, classes), *parts, decision)
    return compare_path(graph(recipe, decision, classes), reference, examples(recipe))


RECIPES = {
    "a volume of one window": lambda: volume("soft_tissue"),
    "windows and neighbors": lambda: volume(*WINDOWS, context_slices=1),
    "two neighbors on either side": lambda: volume("soft_tissue", context_slices=2, output_range=(0, 1)),
    "a sigmoid": lambda: volume({"center": 40, "width": 400, "function": "SIGMOID"}),
    "an exact window": lambda: volume({"center": 40, "width": 400, "function": "LINEAR_EXACT"}),
    "a threshold": lambda: volume({"center": 40, "width": 1}, "soft_tissue"),
    "percentiles of a volume": lambda: volume({"percentiles": [1, 99]}, {"percentiles": [5, 60]}, context_slices=1),
    "windows of the header": lambda: volume("header:1", "soft_tissue", "header", context_slices=1),
    "a radiograph": lambda: projection({"percentiles": [1, 99]}),
    "a radiograph by its header": lambda: projection("header", {"center": 500, "width": 700}),
    "a photograph": photograph,
    "a photograph enlarged": lambda: photograph((330, 340)),
}


@pytest.mark.parametrize(
    "name", some_slow(RECIPES, ("windows and neighbors", "a radiograph", "a photograph", "percentiles of a volume"))
)
def test_agrees_with_the_bundle_at_every_size(name):
    found = agreement(RECIPES[name]())
    assert found.images == 6
    assert found.logit_error < 1e-5 and found.probability_error < 1e-5 and found.mask_agreement > 0.9999
    found.require(name)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: volume(*WINDOWS, context_slices=1), photograph])
@pytest.mark.parametrize("flips", [[[0]], [[0], [1], [0, 1]]])
def test_mirror_images_are_averaged(make, flips):
    assert agreement(make(), flips).logit_error < 1e-5
    parts = steps(make())
    recipe = recipe_of(*parts)
    plain = Reference(network(recipe.channels), *parts, PLAIN)
    other = graph(recipe_of(*steps(make(), flips)))
    assert compare_path(other, plain, examples(recipe)).logit_error > 0.01  # so that they are not averaged over nothing


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "threshold"), [(2.5, None), (0.7, 0.3), (1.0, 0.62)])
def test_temperature_and_threshold(temperature, threshold):
    decision = Decision(temperature, threshold)
    found = agreement(photograph(), decision=decision, classes=2)
    assert found.logit_error < 1e-5 and found.probability_error < 1e-5 and found.mask_agreement > 0.9999
    recipe = recipe_of(*steps(photograph()))
    undecided = Reference(network(3, 2), *steps(photograph()), PLAIN)
    apart = compare_path(graph(recipe, decision, 2), undecided, examples(recipe))
    assert apart.probability_error > 0.01 or apart.mask_agreement < 0.99


@pytest.mark.slow
def test_a_batch_is_its_images():
    recipe = recipe_of(*steps(volume("header", context_slices=1)))
    run = open_session(graph(recipe).SerializeToString(), threads=1, remedy="")
    (example,) = examples(recipe, [(40, 57)])
    names = [item.name for item in run.get_inputs()]
    assert names == ["image", "spacing", "inverted", "windows"]
    together = run.run(None, example.feed)
    for k in range(3):
        alone = run.run(None, {n: v if n == "spacing" else v[k : k + 1] for n, v in example.feed.items()})
        for mine, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_allclose(mine[0], all_of_them[k], atol=1e-6)


def test_what_a_graph_cannot_hold_is_refused():
    whole, infer, post = steps(photograph())
    for wrong, text in [
        ((Compose([*whole.transforms, ScaleIntensityd("image")]), infer, post), "ScaleIntensityd cannot be put into"),
        ((whole, SlidingWindowInferer((32, 32)), post), "mode 'constant'.* blends tiles by mode \"gaussian\""),
        (
            (whole, SlidingWindowInferer((32, 49), mode="gaussian"), post),
            r"Tiles of \[32, 49\] do not fit",
        ),
        ((whole, SliceInferer(roi_size=(32, 32), spatial_dim=2), post), r"tiles \(SliceInferer\)"),
        ((projection("soft_tissue"), SlidingWindowInferer((32, 32), mode="gaussian"), post), "SlidingWindowInferer"),
        ((whole, infer, Compose([*post.transforms, FillHolesd("pred")])), "FillHolesd"),
    ]:
        with pytest.raises(PyrasegError, match=text):
            recipe_of(*wrong)


class OneSize(nn.Module):
    """A network whose pooling the exporter writes for one size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Convolutions(3, 3)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.inner(image)
        return logits + F.interpolate(F.adaptive_avg_pool2d(logits, 3), logits.shape[2:], mode="bilinear")


class Guessing(Convolutions):
    """A network that computes something else in every call, as a graph that forgets something does."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) + (0.01 * torch.rand(1) if not torch.compiler.is_exporting() else 0)


@pytest.mark.parametrize(
    ("wrong", "text"), [(OneSize(), "for one size"), (Guessing(3, 3), "not what PyTorch computes")]
)
def test_a_graph_that_computes_something_else_is_not_kept(wrong, text, tmp_path):
    parts = Parts(wrong, 3, 3, *steps(photograph()), "photograph")
    with pytest.raises(PyrasegError, match=text):
        export(parts, tmp_path / "n.onnx", tmp_path / "p.onnx", properties={})
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_stays_when_a_graph_is_refused(tmp_path):
    (tmp_path / "p.onnx").write_text("before")
    with pytest.raises(PyrasegError):
        export(
            Parts(Guessing(3, 3), 3, 3, *steps(photograph()), "photograph"),
            tmp_path / "n.onnx",
            tmp_path / "p.onnx",
            properties={},
        )
    assert [path.name for path in tmp_path.iterdir()] == ["p.onnx"] and (tmp_path / "p.onnx").read_text() == "before"


def test_files_are_whole_valid_and_say_what_they_are(tmp_path):
    parts = Parts(network(9), 9, 3, *steps(volume(*WINDOWS, context_slices=1)), "volume")
    files = tmp_path / "made" / "n.onnx", tmp_path / "made" / "p.onnx"
    found = export(parts, *files, properties={"name": "Ä"}, decision=Decision(1.5))
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["n.onnx", "p.onnx"]
    assert all(item.logit_error < LOGIT_TOLERANCE for item in found.values())
    contents = {}
    for path in files:
        onnx.checker.check_model(path, full_check=True)
        about = {item.key: item.value for item in onnx.load(path).metadata_props}
        assert about["name"] == "Ä" and about["pyraseg_format"] == "1"
        contents[about["content"]] = about
    assert set(contents) == {"network", "path"}
    recipe = json.loads(contents["path"]["recipe"])
    assert [window["center"] for window in recipe["windows"]] == [90, 40, 0]
    assert (recipe["image_kind"], recipe["context_slices"], recipe["spacing"]) == ("volume", 1, 1.7)
    assert contents["path"]["temperature"] == "1.5"


@pytest.mark.parametrize("decision", [Decision(0.0), Decision(1, 0.5), Decision(1, 1.5)])
def test_decisions_that_mean_nothing_are_refused(decision, tmp_path: Path):
    classes = 2 if decision.threshold == 1.5 else 3
    with pytest.raises(PyrasegError, match=r"temperature|threshold"):
        export(
            Parts(network(3), 3, classes, *steps(photograph()), "photograph"),
            tmp_path / "n",
            None,
            properties={},
            decision=decision,
        )

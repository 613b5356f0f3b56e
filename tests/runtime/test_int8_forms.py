# SPDX-License-Identifier: Apache-2.0
"""A network in int8 gives in the runtime what it gives in the bundle, whatever the bundle does around it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from monai.transforms import LoadImaged

from bundle.pyraseg.commands import quantize as command
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.deployment import Decision, OnnxNetwork, describe, quantize, recipe_of
from bundle.pyraseg.deployment.reference import Reference
from bundle.pyraseg.runtime.__main__ import main
from bundle.pyraseg.transforms import MedicalImageReader, TidyLabelsd
from tests.helpers.exported import exported
from tests.helpers.onnx_paths import kind_of, photograph, projection, steps, tiled, volume
from tests.helpers.runtime_series import check, png, series
from tests.helpers.some import some_slow
from tests.runtime.test_tiled_photographs import FLIPS, picture

TIDY = TidyLabelsd("pred", class_names=["background", "liver", "spleen"], keep_largest=["liver", "spleen"])
#: What is around a network, and how many channels it has.
KINDS: dict[str, tuple[Callable[[], tuple], int]] = {
    "a photograph": (lambda: steps(photograph(), [[0]]), 3),
    "a photograph in tiles": (lambda: tiled(photograph(), FLIPS), 3),
    "a radiograph": (lambda: steps(projection({"percentiles": [1, 99]})), 1),
    "slices that are tidied up": (lambda: steps(volume({"percentiles": [1, 99]}, context_slices=1), tidy=TIDY), 3),
}


@pytest.mark.parametrize("kind", some_slow(KINDS, ("a photograph in tiles", "slices that are tidied up")))
def test_labels_are_those_of_the_bundle(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, channels = KINDS[kind][0](), KINDS[kind][1]
    of_images = kind_of(parts[0])
    in_float = exported(tmp_path, parts[0], rgb=of_images == "photograph", parts=parts)
    images = [np.random.default_rng(k).normal(size=(1, channels, 40, 50)).astype(np.float32) for k in range(4)]
    network = quantize(in_float.network_path, images, images, enough=0).model
    described = ir.to_proto(describe(ir.from_proto(network), {"precision": "int8"}))
    onnx.save(described, tmp_path / "int8.network.onnx")
    monkeypatch.setattr(command, "recipe_of_config", lambda config: recipe_of(*parts, of_images))
    onnx.save(command.whole_path(described, in_float.path, {}), tmp_path / "int8.onnx")
    if of_images == "volume":
        source, result = series(tmp_path / "in", Modality="MR"), "in_labels"
    else:
        source, result = picture(tmp_path / "a.png", (90, 70), gray=of_images == "projection"), "a.png"
    assert main([str(tmp_path / "int8.onnx"), str(source), str(tmp_path / "out"), "--threads", "1"]) == 0
    load = LoadImaged("image", reader=MedicalImageReader(rgb=of_images == "photograph"), ensure_channel_first=True)
    alone = OnnxNetwork(tmp_path / "int8.network.onnx", threads=1, settings=None, remedy="")
    expected = Reference(alone, *parts, Decision())(load({"image": str(source)})).classes
    check(png(tmp_path / "out" / result), expected)
    same = (expected == in_float.truth(str(source))).mean()
    assert 0.9 < same < 1
    about = {item.key: item.value for item in onnx.load(tmp_path / "int8.onnx").metadata_props}
    assert about["precision"] == "int8" and about["weights_sha256"]


def test_a_float_path_with_another_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = steps(photograph())
    in_float = exported(tmp_path, parts[0], rgb=True, parts=parts)
    network = onnx.load(in_float.network_path)
    network.metadata_props.add(key="precision", value="int8")
    other = recipe_of(*steps(photograph((32, 32))), "photograph")
    monkeypatch.setattr(command, "recipe_of_config", lambda config: other)
    with pytest.raises(PyrasegError, match=r"preprocess images differently than .*small.onnx"):
        command.whole_path(network, in_float.path, {})

# SPDX-License-Identifier: Apache-2.0
"""Write a trained network as ONNX, alone and with its whole path, and keep only what computes the same."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import nn

from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.deployment.agreement import Agreement, compare_network, compare_path
from bundle.pyraseg.deployment.onnx_graph import describe, network_model, path_model
from bundle.pyraseg.deployment.recipe import Decision, Recipe, read_recipe
from bundle.pyraseg.deployment.reference import Reference, examples
from bundle.pyraseg.runtime import FORMAT


@dataclass(frozen=True, eq=False)
class Parts:
    """Hold the components of an inference config that a graph is made of; the network has its trained weights."""

    network: nn.Module
    channels: int
    classes: int
    preprocessing: Compose
    inferer: Inferer
    postprocessing: Compose
    image_kind: str


def export(
    parts: Parts,
    network_file: Path,
    path_file: Path | None,
    *,
    properties: Mapping[str, str],
    decision: Decision = Decision(),  # noqa: B008 it is frozen
) -> dict[Path, Agreement]:
    """Write both graphs after both were compared with PyTorch.

    Args:
        parts: what is exported.
        network_file: the network alone: image (B, channels, columns, rows) float32 -> logits, any size.
        path_file: the whole path, from raw pixels to classes, see `Inputs`; None: not wanted.
        properties: what the files say of themselves.
        decision: how probabilities become classes, in the whole path.

    Returns:
        For each file how well it agrees.

    Raises:
        PyrasegError: the config does something that a graph cannot hold, or a graph does not compute the same as
            PyTorch; nothing was written.
    """
    require_decision(decision, parts.classes)
    network = parts.network.eval()
    steps = (parts.preprocessing, parts.inferer, parts.postprocessing)
    recipe = None if path_file is None else read_recipe(*steps, parts.image_kind)
    model = network_model(network, parts.channels)
    files = {network_file: _described(model, {**properties, "content": "network"})}
    agreements = {network_file: compare_network(files[network_file], network, parts.channels)}
    if recipe is not None and path_file is not None:
        whole = path_model(model, recipe, decision)
        about = {**properties, **recipe_properties(recipe, decision), "content": "path"}
        files[path_file] = _described(whole, about)
        reference = Reference(network, *steps, decision)
        agreements[path_file] = compare_path(files[path_file], reference, examples(recipe))
    for path, agreement in agreements.items():
        agreement.require(f"The graph for {path}")
    for path, proto in files.items():
        with replacing(path) as temporary:
            onnx.save(proto, temporary)
    return agreements


def _described(model: ir.Model, properties: Mapping[str, str]) -> onnx.ModelProto:
    return ir.to_proto(describe(model, {**properties, "pyraseg_format": FORMAT}))


def recipe_properties(recipe: Recipe, decision: Decision) -> dict[str, str]:
    """Return what a runtime, and a reader, have to know of a recipe.

    The runtime uses `image_kind`, `context_slices` and `free_windows`; the rest tells what is inside.
    """
    return {
        "recipe": json.dumps({**asdict(recipe), "free_windows": recipe.free_windows}),
        "temperature": str(decision.temperature),
        "threshold": "" if decision.threshold is None else str(decision.threshold),
    }


def require_decision(decision: Decision, classes: int) -> None:
    """Refuse a threshold or a temperature that means nothing for a number of classes.

    Raises:
        PyrasegError: it means nothing.
    """
    if decision.temperature <= 0:
        raise PyrasegError(f"A temperature is above 0, not {decision.temperature:g}.")
    if decision.threshold is None:
        return
    if classes != 2:
        raise PyrasegError(f"A threshold parts two classes, and there are {classes}. Leave it out.")
    if not 0 < decision.threshold < 1:
        raise PyrasegError(f"A threshold lies between 0 and 1, not at {decision.threshold:g}.")

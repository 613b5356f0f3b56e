# SPDX-License-Identifier: Apache-2.0
"""Write a trained network as ONNX, alone and with its whole path, and keep only what computes the same."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import nn

from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.deployment.agreement import (
    Agreement,
    compare_clicks,
    compare_network,
    compare_path,
    compare_path_with_clicks,
)
from bundle.pyraseg.deployment.examples import SIZES, VOLUME_SIZES, examples
from bundle.pyraseg.deployment.path import LOGITS, Inputs, Operators, after_network, before_network, of_the_image
from bundle.pyraseg.deployment.recipe import Decision, Recipe, untidied
from bundle.pyraseg.deployment.reference import Reference
from bundle.pyraseg.deployment.volume_recipe import VolumeRecipe, recipe_of
from bundle.pyraseg.inference import TileInferer
from bundle.pyraseg.networks import ClickNetwork, Look
from bundle.pyraseg.runtime import (
    CLICKS,
    FEATURES,
    FORMAT,
    PATH,
    PROMPTS,
    RECIPE_FORMAT,
    REGION_FORMAT,
    SHOWN,
    TILES,
    click_file,
)

OPSET = 20
#: Names of the axes of an image, or of a volume, and the sides that a network is traced at: no two the same, no
#: multiples of a stride.
TRACED = {2: {"height": 70, "width": 91}, 3: {"width": 46, "height": 53, "depth": 39}}


def network_model(network: nn.Module, channels: int, *, axes: int = 2) -> ir.Model:
    """Return a network for any batch and size: image (B, C, H, W[, D]) float32 -> logits (B, classes, H, W[, D]).

    The graph of a `ClickNetwork` has `FEATURES` as well, which what is computed for each click begins with.

    Args:
        network: on the CPU.
        channels: C.
        axes: 2, or 3 for volumes.

    Raises:
        PyrasegError: the network cannot be written.
    """
    sides = TRACED[axes]
    shape = {0: torch.export.Dim("batch"), **{n: torch.export.Dim(name) for n, name in enumerate(sides, 2)}}
    image = torch.zeros(2, channels, *sides.values())
    clicks = isinstance(network, ClickNetwork)
    outputs = ["logits", *(FEATURES if clicks else ())]
    return traced(Look(network) if clicks else network, {"image": image}, outputs, shape)


def traced(
    network: nn.Module, images: Mapping[str, torch.Tensor], outputs: Sequence[str], shape: Mapping[int, Any]
) -> ir.Model:
    """Return the graph of a module, whose inputs and outputs have names.

    Args:
        network: on the CPU.
        images: its inputs by name, in their order.
        outputs: their names.
        shape: the axes of an input that may have any length, as `torch.export` names them.

    Raises:
        PyrasegError: it cannot be written.
    """
    exporters = logging.getLogger("torch.onnx")
    level = exporters.level
    exporters.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's remarks on its own use of torch
            program = torch.onnx.export(
                network.eval(),
                tuple(images.values()),
                dynamo=True,
                dynamic_shapes=tuple(dict(shape) for _ in images),
                input_names=list(images),
                output_names=list(outputs),
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # the exporter raises types of its own, of torch and of Python
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        raise PyrasegError(
            f"PyTorch cannot write this network as ONNX ({type(error).__name__}: {reason}). One of its operations has "
            "no counterpart there, or holds for one size alone. Use another encoder or decoder."
        ) from error
    finally:
        exporters.setLevel(level)
    if program is None:
        raise PyrasegError("PyTorch wrote no graph of this network. Use another encoder or decoder.")
    return program.model


def path_model(network: ir.Model, recipe: Recipe, decision: Decision) -> ir.Model:
    """Put the way of an image around the graph of a network, which becomes a part of the result.

    Args:
        network: what `network_model` returned; it is used up.
        recipe: what happens before and after.
        decision: how probabilities become classes.

    Returns:
        A model with the inputs of `Inputs`, the outputs `classes` and `probabilities`, and `SHOWN`, what the network is
        shown of an image and of its mirror images, and the value `LOGITS` inside. Where clicks may correct the network,
        `LOGITS` is an output, too, and so are `FEATURES` of the image itself.
    """
    graph, inputs = network.graph, Inputs.of(recipe)
    (shown,), (logits, *features) = graph.inputs, graph.outputs
    shown.name, logits.name = "network_image", "network_logits"
    before, after = Operators("before"), Operators("after")
    prepared = before_network(before, recipe, inputs)
    classes, probabilities, averaged = after_network(after, recipe, inputs, logits, decision)
    averaged.name = LOGITS
    kept = [averaged, *(of_the_image(after, recipe, value) for value in features)] if features else []
    sides = ("height", "width")
    for value, name, dtype, shape in (
        (classes, "classes", ir.DataType.UINT8, ("batch", *sides)),
        (
            probabilities,
            "probabilities",
            ir.DataType.FLOAT,
            ("batch", logits.shape[1] if logits.shape else None, *sides),
        ),
        (prepared, SHOWN, ir.DataType.FLOAT, ("views", recipe.channels, "columns", "rows")),
        *(
            (value, name, ir.DataType.FLOAT, ("batch", None, f"{name}_columns", f"{name}_rows"))
            for value, name in zip(kept, (LOGITS, *FEATURES), strict=False)  # none, where no clicks are taken
        ),
    ):
        value.name, value.dtype, value.shape = name, dtype, ir.Shape(shape)
    ir.convenience.replace_all_uses_with(shown, prepared)
    graph.insert_before(graph[0], before.tape.nodes)
    graph.extend(after.tape.nodes)
    for value in (*before.tape.initializers, *after.tape.initializers):
        graph.register_initializer(value)
    graph.inputs[:] = inputs.all()
    graph.outputs[:] = [classes, probabilities, prepared, *kept]
    # What the exporter knew of sizes inside was in terms of the network's own batch, height and width.
    for node in graph:
        for value in node.outputs:
            if value not in graph.outputs:
                value.shape = None
    return network


def refine_model(network: ClickNetwork, channels: int) -> ir.Model:
    """Return what is computed for each click as a graph, for any size.

    Its inputs are `log_odds` (B, 1, W, H), `FEATURES` and `prompts` (B, 5, W, H), its output is `corrected`
    (B, 1, W, H).
    """
    image = torch.zeros(2, channels, *TRACED[2].values())
    with torch.no_grad():
        logits, *features = network.look(image)
    prompts = torch.zeros(2, len(PROMPTS), *logits.shape[2:])
    inputs = {"log_odds": logits[:, :1].contiguous(), **dict(zip(FEATURES, features, strict=True)), "prompts": prompts}
    # The sides of the features follow from those of the image, in steps of the largest stride.
    return traced(network.prompts, inputs, ["corrected"], dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC))


def describe(model: ir.Model, properties: Mapping[str, str]) -> ir.Model:
    """Write what a model is into its metadata."""
    model.metadata_props.clear()
    model.metadata_props.update(properties)
    model.producer_name, model.doc_string = "Pyraseg", properties.get("description", "")
    for node in model.graph:  # the exporter notes where in which file of this machine each was written
        node.metadata_props.clear()
    return model


@dataclass(frozen=True, eq=False)
class Parts:
    """Hold the components of an inference config that a graph is made of; the network has its trained weights.

    `classes` counts the background, too; `regions` is how many regions there are in their place, 0 of none.
    """

    network: nn.Module
    channels: int
    classes: int
    preprocessing: Compose
    inferer: Inferer
    postprocessing: Compose
    image_kind: str
    regions: int = 0


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
        path_file: the whole path, from raw pixels to classes, see `Inputs`; of a network that sees tiles, the network
            with the recipe that the runtime follows around it; None: not wanted. Of a `ClickNetwork`, what is computed
            for each click is written beside it, see `click_file`.
        properties: what the files say of themselves.
        decision: how probabilities become classes, in the whole path.

    Returns:
        For each file how well it agrees.

    Raises:
        PyrasegError: the config does something that neither a graph can hold nor the runtime does, or a graph does not
            compute the same as PyTorch; nothing was written.
    """
    require_decision(decision, parts.classes, regions=parts.regions)
    network = parts.network.eval()
    clicks = isinstance(network, ClickNetwork)
    steps = (parts.preprocessing, parts.inferer, parts.postprocessing)
    sigmoid = parts.regions > 0
    axes = 3 if isinstance(parts.inferer, TileInferer) else 2
    recipe = None if path_file is None else recipe_of(*steps, parts.image_kind)
    if recipe is not None and recipe.patch_size is not None and decision.threshold is not None:
        raise PyrasegError("A threshold is for whole images and slices; of tiles the larger probability counts.")
    if clicks and recipe is not None and recipe.patch_size is not None:
        raise PyrasegError(
            "A network that is corrected by clicks sees whole images. Leave slice_size or patch_size out."
        )
    properties = {**properties, "pyraseg_format": _format(recipe, regions=parts.regions)}
    model = network_model(network, parts.channels, axes=axes)
    files = {network_file: _described(model, {**properties, "content": "network"})}
    sizes = VOLUME_SIZES if axes == 3 else SIZES
    agreements = {network_file: compare_network(files[network_file], network, parts.channels, sizes, sigmoid=sigmoid)}
    if isinstance(network, ClickNetwork):
        refine, place = refine_model(network, parts.channels), click_file(path_file or network_file)
        files[place] = _described(refine, {**properties, "content": CLICKS})
        agreements[place] = compare_clicks(files[network_file], files[place], network, parts.channels)
    if recipe is not None and path_file is not None:
        about = {**properties, **recipe_properties(recipe, decision)}
        if (tile := recipe.patch_size) is not None:
            files[path_file] = _described(model, {**about, "content": TILES})
            agreements[path_file] = compare_network(files[path_file], network, parts.channels, [tile], sigmoid=sigmoid)
        else:
            assert isinstance(recipe, Recipe)  # volumes are always seen in tiles
            files[path_file] = _described(path_model(model, recipe, decision), {**about, "content": PATH})
            reference = Reference(network, *steps[:2], untidied(parts.postprocessing), decision, sigmoid=sigmoid)
            agreements[path_file] = compare_path(files[path_file], reference, examples(recipe))
            if isinstance(network, ClickNetwork):
                graphs = files[path_file], files[click_file(path_file)]
                agreement = compare_path_with_clicks(*graphs, network, reference, examples(recipe))
                agreement.require(f"The graph for clicks behind {path_file}")
    return _written(files, agreements)


def _format(recipe: Recipe | VolumeRecipe | None, *, regions: int) -> str:
    """Return the version of the metadata: what an earlier runtime would do wrong has one that it refuses."""
    if recipe is not None and (recipe.tidying or (recipe.patch_size is not None and recipe.image_kind != "volume")):
        return RECIPE_FORMAT
    return REGION_FORMAT if regions else FORMAT


def _written(files: dict[Path, onnx.ModelProto], agreements: dict[Path, Agreement]) -> dict[Path, Agreement]:
    """Write graphs if all of them agree; return how well they do."""
    for path, agreement in agreements.items():
        agreement.require(f"The graph for {path}")
    for path, proto in files.items():
        with replacing(path) as temporary:
            onnx.save(proto, temporary)
    return agreements


def _described(model: ir.Model, properties: Mapping[str, str]) -> onnx.ModelProto:
    return ir.to_proto(describe(model, properties))


def recipe_properties(recipe: Recipe | VolumeRecipe, decision: Decision) -> dict[str, str]:
    """Return what a runtime, and a reader, have to know of a recipe.

    Around a whole path, the runtime uses `image_kind`, `context_slices`, `free_windows` and `tidying`; the rest tells
    what is inside.
    """
    return {
        "recipe": recipe.text,
        "temperature": str(decision.temperature),
        "threshold": "" if decision.threshold is None else str(decision.threshold),
    }


def require_decision(decision: Decision, classes: int, *, regions: int = 0) -> None:
    """Refuse a threshold or a temperature that means nothing for a number of classes, or for regions.

    Raises:
        PyrasegError: it means nothing.
    """
    if decision.temperature <= 0:
        raise PyrasegError(f"The temperature must be above 0, not {decision.temperature:g}.")
    if regions and decision != Decision():
        raise PyrasegError("Regions have no temperature, and a voxel lies in those above 0.5: leave the threshold out.")
    if decision.threshold is None:
        return
    if classes != 2:
        raise PyrasegError(f"A threshold needs two classes, and there are {classes}. Leave it out.")
    if not 0 < decision.threshold < 1:
        raise PyrasegError(f"The threshold must be between 0 and 1, not {decision.threshold:g}.")

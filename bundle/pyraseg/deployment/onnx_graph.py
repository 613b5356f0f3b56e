# SPDX-License-Identifier: Apache-2.0
"""Write a network, or the whole way of an image through it, as ONNX."""

import logging
import warnings
from collections.abc import Mapping

import onnx_ir as ir
import torch
from torch import nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.deployment.operators import Operators
from bundle.pyraseg.deployment.path import Inputs, after_network, before_network
from bundle.pyraseg.deployment.recipe import Decision, Recipe

OPSET = 20
#: Sides that the network is traced at: two images, not square, no multiples of a stride.
TRACED = (2, 70, 91)
#: Name, inside the graph of a path, of the logits on the grid of the network, averaged over mirror images.
LOGITS = "logits"


def network_model(network: nn.Module, channels: int) -> ir.Model:
    """Return a network for any batch, height and width: image (B, C, H, W) float32 -> logits (B, classes, H, W).

    Raises:
        PyrasegError: the network cannot be written.
    """
    shapes = ({axis: torch.export.Dim(name) for axis, name in [(0, "batch"), (2, "height"), (3, "width")]},)
    batch, *size = TRACED
    exporters = logging.getLogger("torch.onnx")
    level = exporters.level
    exporters.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's remarks on its own use of torch
            program = torch.onnx.export(
                network.eval(),
                (torch.zeros(batch, channels, *size),),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=["image"],
                output_names=["logits"],
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
        A model with the inputs of `Inputs`, the outputs `classes` and `probabilities`, and the value `LOGITS` inside.
    """
    graph, inputs = network.graph, Inputs.of(recipe)
    (shown,), (logits,) = graph.inputs, graph.outputs
    shown.name, logits.name = "network_image", "network_logits"
    before, after = Operators("before"), Operators("after")
    prepared = before_network(before, recipe, inputs)
    classes, probabilities, averaged = after_network(after, recipe, inputs, logits, decision)
    averaged.name = LOGITS
    sides = ("height", "width")
    for value, name, dtype, shape in (
        (classes, "classes", ir.DataType.UINT8, ("batch", *sides)),
        (
            probabilities,
            "probabilities",
            ir.DataType.FLOAT,
            ("batch", logits.shape[1] if logits.shape else None, *sides),
        ),
    ):
        value.name, value.dtype, value.shape = name, dtype, ir.Shape(shape)
    ir.convenience.replace_all_uses_with(shown, prepared)
    graph.insert_before(graph[0], before.tape.nodes)
    graph.extend(after.tape.nodes)
    for value in (*before.tape.initializers, *after.tape.initializers):
        graph.register_initializer(value)
    graph.inputs[:] = inputs.all()
    graph.outputs[:] = [classes, probabilities]
    # What the exporter knew of sizes inside was in terms of the network's own batch, height and width.
    for node in graph:
        for value in node.outputs:
            if value not in graph.outputs:
                value.shape = None
    return network


def describe(model: ir.Model, properties: Mapping[str, str]) -> ir.Model:
    """Write what a model is into its metadata."""
    model.metadata_props.clear()
    model.metadata_props.update(properties)
    model.producer_name, model.doc_string = "Pyraseg", properties.get("description", "")
    for node in model.graph:  # the exporter notes where in which file of this machine each was written
        node.metadata_props.clear()
    return model

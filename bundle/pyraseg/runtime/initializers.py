# SPDX-License-Identifier: Apache-2.0
"""The weights inside an ONNX file, without the package onnx: are they finite?"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from bundle.pyraseg.core import PyrasegError

#: The messages and fields of ONNX (onnx.proto) that lead to weights: number, type, and whether there are several.
SCHEMA = {
    "Model": {"graph": (7, "Graph", False)},
    "Graph": {"node": (1, "Node", True), "initializer": (5, "Tensor", True)},
    "Node": {"attribute": (5, "Attribute", True)},
    "Attribute": {"t": (5, "Tensor", False), "g": (6, "Graph", False)},
    "Tensor": {
        "dims": (1, "INT64", True),
        "data_type": (2, "INT32", False),
        "float_data": (4, "FLOAT", True),
        "int32_data": (5, "INT32", True),
        "name": (8, "STRING", False),
        "raw_data": (9, "BYTES", False),
        "double_data": (10, "DOUBLE", True),
        "data_location": (14, "INT32", False),
    },
}
#: Numbers of ONNX for types of floating-point tensors; the last one, bfloat16, is the upper half of a float32.
FLOAT, FLOAT16, DOUBLE, BFLOAT16 = 1, 10, 11, 16
EXTERNAL = 1


def require_finite_graph(model: str | Path | bytes) -> None:
    """Refuse an ONNX model that holds NaN or infinity.

    Args:
        model: file, or its bytes.

    Raises:
        PyrasegError: some weights are not finite, or lie in a file of their own. What is no ONNX model passes: whoever
            loads it finds out.
    """
    name = "The graph" if isinstance(model, bytes) else str(model)
    parsed = _message("Model")()
    try:
        parsed.ParseFromString(model if isinstance(model, bytes) else Path(model).read_bytes())
    except DecodeError:
        return
    for tensor in _tensors(parsed.graph):
        if tensor.data_location == EXTERNAL:
            raise PyrasegError(
                f"{name} keeps its weights in another file, as pyraseg export never does. Export it anew."
            )
        values = _values(tensor)
        # A number without a dimension is no weight; an infinite one may be what an operation pads or clips with.
        odd = np.isnan(values) if not tensor.dims else ~np.isfinite(values)
        count = int(np.count_nonzero(odd))
        if count:
            raise PyrasegError(
                f"{name}: {count} weights of {tensor.name!r} are NaN or infinite. Nothing can be computed with them. "
                "Export the weights of an earlier epoch or model."
            )


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _values(tensor: Any) -> np.ndarray:
    """Return the numbers of a floating-point tensor; nothing for other types."""
    if tensor.data_type == FLOAT:
        return np.frombuffer(tensor.raw_data, "<f4") if tensor.raw_data else np.array(tensor.float_data, "f4")
    if tensor.data_type == DOUBLE:
        return np.frombuffer(tensor.raw_data, "<f8") if tensor.raw_data else np.array(tensor.double_data, "f8")
    if tensor.data_type in (FLOAT16, BFLOAT16):
        halves = np.frombuffer(tensor.raw_data, "<u2") if tensor.raw_data else np.array(tensor.int32_data, "<u2")
        return halves.view("<f2") if tensor.data_type == FLOAT16 else (halves.astype("<u4") << 16).view("<f4")
    return np.empty(0)


@cache
def _message(name: str) -> type:
    """Return the class of one of the messages in `SCHEMA`."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="pyraseg_onnx.proto", package="pyraseg_onnx", syntax="proto2")
    for message, fields in SCHEMA.items():
        described = file.message_type.add(name=message)
        for key, (number, kind, several) in fields.items():
            label = field.LABEL_REPEATED if several else field.LABEL_OPTIONAL
            added = described.field.add(name=key, number=number, label=label)
            if kind in SCHEMA:
                added.type, added.type_name = field.TYPE_MESSAGE, f".pyraseg_onnx.{kind}"
            else:
                added.type = getattr(field, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"pyraseg_onnx.{name}"))

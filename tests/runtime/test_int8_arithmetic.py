# SPDX-License-Identifier: Apache-2.0
"""Products of bytes are exact on every processor, so that an int8 model gives the labels that passed its gate."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bundle.pyraseg.runtime.model import open_session


def quantized(operator: str, weights: np.ndarray, size: tuple[int, ...]) -> ModelProto:
    """Return a graph as `quantize_static` writes it: what is behind DequantizeLinear becomes integers in a session."""
    channel = 1 if operator == "ConvTranspose" else 0
    value, node = helper.make_tensor_value_info, helper.make_node
    scales = numpy_helper.from_array(np.ones(weights.shape[channel], np.float32), "scales")
    zeros = numpy_helper.from_array(np.zeros(weights.shape[channel], np.int8), "zeros")
    one, large = (numpy_helper.from_array(np.float32(number), name) for number, name in ((1, "one"), (512, "large")))
    none = numpy_helper.from_array(np.uint8(0), "none")
    nodes = [
        node("QuantizeLinear", ["x", "one", "none"], ["xq"]),
        node("DequantizeLinear", ["xq", "one", "none"], ["xd"]),
        node("DequantizeLinear", ["w", "scales", "zeros"], ["wd"], axis=channel),
        node(operator, ["xd", "wd"], ["f"], **({"transB": 1} if operator == "Gemm" else {})),
        node("QuantizeLinear", ["f", "large", "none"], ["yq"]),
        node("DequantizeLinear", ["yq", "large", "none"], ["y"]),
    ]
    ends = [value("x", TensorProto.FLOAT, size)], [value("y", TensorProto.FLOAT, None)]
    kept = [numpy_helper.from_array(weights, "w"), scales, zeros, one, large, none]
    graph = helper.make_graph(nodes, "g", *ends, initializer=kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("operator", "shape", "size"),
    [
        ("Conv", (16, 8, 1, 1), (1, 8, 9, 7)),
        ("ConvTranspose", (8, 16, 1, 1), (1, 8, 9, 7)),
        ("Gemm", (16, 8), (5, 8)),
    ],
)
def test_the_largest_bytes_are_multiplied_exactly(operator, shape, size):
    """Two products of 255 and 127 exceed 16 bits, which processors without VNNI add them in by default."""
    random = np.random.default_rng(0)
    weights = random.choice(np.array([-127, 127, 126], np.int8), shape, p=[0.1, 0.8, 0.1])
    image = random.choice(np.array([255, 254, 251], np.float32), size)
    run = open_session(quantized(operator, weights, size).SerializeToString(), threads=1, remedy="")
    (found,) = run.run(None, {"x": image})
    equation = {"Conv": "oiab,nihw->nohw", "ConvTranspose": "ioab,nihw->nohw", "Gemm": "oi,ni->no"}[operator]
    exact = np.einsum(equation, weights.astype(np.int64), image.astype(np.int64))
    np.testing.assert_array_equal(found, 512 * np.clip(np.rint(exact / 512), 0, 255))

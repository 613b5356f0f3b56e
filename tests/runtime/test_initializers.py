# SPDX-License-Identifier: Apache-2.0
"""Weights of an ONNX file that are not finite are found without the package onnx, however they are stored."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.runtime.initializers import require_finite_graph
from bundle.pyraseg.runtime.model import open_session

VALUES = np.array([[1.0, -2.0], [0.5, 3.0]])


def model(weights: TensorProto, *, constant: bool = False, nested: bool = False) -> onnx.ModelProto:
    """Return a model that adds weights: an initializer, a constant, or a constant in a branch."""
    value = helper.make_tensor_value_info
    made = helper.make_node("Constant", [], ["w"], value=weights)
    nodes = [made] if constant else []
    if nested:
        branch = helper.make_graph([made], "branch", [], [value("w", weights.data_type, [2, 2])])
        truth = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
        nodes = [truth, helper.make_node("If", ["c"], ["w2"], then_branch=branch, else_branch=branch)]
    nodes.append(helper.make_node("Add", ["x", "w2" if nested else "w"], ["y"]))
    ends = [value("x", weights.data_type, [2, 2])], [value("y", weights.data_type, [2, 2])]
    graph = helper.make_graph(nodes, "g", *ends, initializer=[] if constant or nested else [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def tensors(values: np.ndarray) -> dict[str, TensorProto]:
    flat = values.ravel().tolist()
    kinds = {"float": TensorProto.FLOAT, "half": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16,
             "double": TensorProto.DOUBLE}  # fmt: skip
    numbers = {name: helper.make_tensor("w", kind, [2, 2], flat) for name, kind in kinds.items()}
    raw = {f"{kind} raw": numpy_helper.from_array(values.astype(kind), "w") for kind in ("f2", "f4", "f8")}
    return {**numbers, **raw}


@pytest.mark.parametrize("kind", tensors(VALUES))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [{}, {"constant": True}, {"nested": True}], ids=["initializer", "constant", "branch"])
def test_they_are_found_however_they_are_stored(kind: str, value: float, place: dict, tmp_path: Path) -> None:
    require_finite_graph(model(tensors(VALUES)[kind], **place).SerializeToString())
    spoilt = VALUES.copy()
    spoilt[1, 0] = value
    onnx.save(model(tensors(spoilt)[kind], **place), tmp_path / "m.onnx")
    with pytest.raises(PyrasegError, match=r"m\.onnx: 1 weights of 'w' are NaN or infinite"):
        require_finite_graph(tmp_path / "m.onnx")


def test_whole_numbers_and_an_infinite_number_to_pad_with_pass() -> None:
    require_finite_graph(model(numpy_helper.from_array(np.full((2, 2), 2**31 - 1, np.int32), "w")).SerializeToString())
    require_finite_graph(model(numpy_helper.from_array(np.array(-np.inf, np.float32), "w")).SerializeToString())
    with pytest.raises(PyrasegError, match="1 weights of 'w'"):
        require_finite_graph(model(numpy_helper.from_array(np.array(np.nan, np.float32), "w")).SerializeToString())


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    made = model(numpy_helper.from_array(VALUES.astype(np.float32), "w"))
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(PyrasegError, match="keeps its weights in another file"):
        require_finite_graph(tmp_path / "m.onnx")


def test_no_session_is_opened(tmp_path: Path) -> None:
    spoilt = np.where(VALUES > 2, np.nan, VALUES).astype(np.float32)
    onnx.save(model(numpy_helper.from_array(spoilt, "w")), tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", (tmp_path / "m.onnx").read_bytes()):
        with pytest.raises(PyrasegError, match="1 weights of 'w' are NaN"):
            open_session(source, threads=1, remedy="")

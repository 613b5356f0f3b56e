# SPDX-License-Identifier: Apache-2.0
"""Repositories for Triton, read with the schema of Triton's own client."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from google.protobuf import text_format

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.deployment.exporting import describe, network_model, path_model
from bundle.pyraseg.deployment.recipe import Decision
from bundle.pyraseg_tools.commands import triton
from tests.helpers import onnx_paths as paths

NUMPY = {"TYPE_FP32": np.float32, "TYPE_FP64": np.float64, "TYPE_UINT8": np.uint8, "TYPE_BOOL": bool}


def write(path, model: ir.Model) -> None:
    onnx.save(ir.to_proto(describe(model, {})), path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write(folder / "tumor.network.onnx", network_model(paths.network(3), 3))
    recipe = paths.recipe_of(*paths.steps(paths.volume(paths.WINDOWS[0], "header")))
    write(folder / "tumor.onnx", path_model(network_model(paths.network(2), 2), recipe, Decision()))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("file", ["tumor.network.onnx", "tumor.onnx"])
def test_what_the_server_reads_is_what_the_graph_takes_and_gives(models, tmp_path, file):
    # No dependency: it asks for an older ml_dtypes than ONNX does. Install it alone, with pip's --no-deps.
    reason = "tritonclient, whose schema the text is read with, is not installed"
    model_config_pb2 = pytest.importorskip("tritonclient.grpc", reason=reason).model_config_pb2
    triton.main([str(models / file), "--output-dir", str(tmp_path), "--threads", "3"])
    (folder,) = tmp_path.iterdir()
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.name == folder.name and config.backend == "onnxruntime" and config.max_batch_size == 0
    assert config.parameters["intra_op_thread_count"].string_value == "3" and config.instance_group[0].count == 1
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    for declared, actual in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [item.name for item in declared] == [item.name for item in actual]
        for mine, theirs in zip(declared, actual, strict=True):
            assert list(mine.dims) == [axis if isinstance(axis, int) else -1 for axis in theirs.shape]
            kind = np.dtype(NUMPY[model_config_pb2.DataType.Name(mine.data_type)])
            assert theirs.type == f"tensor({ {'float32': 'float', 'float64': 'double'}.get(kind.name, kind.name) })"


def test_a_model_in_int8_is_told_to_depend_on_the_processor(models, tmp_path, caplog):
    model = onnx.load(models / "tumor.network.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.int8), "weights"))
    onnx.save(model, tmp_path / "tumor.int8.network.onnx")
    triton.main([str(models / "tumor.network.onnx"), "--output-dir", str(tmp_path / "float")])
    assert not caplog.text
    triton.main([str(tmp_path / "tumor.int8.network.onnx"), "--output-dir", str(tmp_path / "int8")])
    assert "On a processor without VNNI, Triton does not add its products exactly" in caplog.text


def test_a_model_that_is_there_stays(models, tmp_path):
    given = [str(models / "tumor.network.onnx"), "--output-dir", str(tmp_path)]
    triton.main(given)
    with pytest.raises(PyrasegError, match=r"tumor_network exists already. Remove it"):
        triton.main(given)
    with pytest.raises(PyrasegError, match=r"no exported model at .*none.onnx. Write it first"):
        triton.main([str(tmp_path / "none.onnx"), "--output-dir", str(tmp_path)])

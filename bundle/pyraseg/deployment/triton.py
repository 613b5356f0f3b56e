# SPDX-License-Identifier: Apache-2.0
"""A model repository for NVIDIA's Triton Inference Server, which runs ONNX files in ONNX Runtime."""

import shutil
from pathlib import Path

import onnx

from bundle.pyraseg.core import PyrasegError, replacing, tell
from bundle.pyraseg.runtime import require_finite_graph

#: What Triton calls the types that our graphs have (`model_config.proto`).
TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.BOOL: "TYPE_BOOL",
}


def write_repository(model_file: Path, folder: Path, *, threads: int, instances: int) -> Path:
    """Write `folder/<model>/config.pbtxt` and `folder/<model>/1/model.onnx`; return the folder of the model.

    Batches are left to the client: requests of different sizes cannot be stacked, and a volume's slices come as one.

    Args:
        model_file: a network or a whole path, as `pyraseg export` and `pyraseg quantize` write them.
        folder: the repository; other models in it stay.
        threads: of each instance.
        instances: copies of the model that answer at once.

    Raises:
        PyrasegError: there is no such file, its weights are not finite, or a model of that name is in the repository.
    """
    if not model_file.is_file():
        raise PyrasegError(f"There is no exported model at {model_file}. Write it first: pyraseg export.")
    name = model_file.name.removesuffix(".onnx").replace(".", "_")
    target = folder / name
    if target.exists():
        raise PyrasegError(f"{target} exists already. Remove it, or give another folder: a server may be using it.")
    require_finite_graph(model_file)
    graph = onnx.load(model_file, load_external_data=False).graph
    if any(item.data_type == onnx.TensorProto.INT8 for item in graph.initializer):
        tell(  # its backend reads named parameters alone, `session.x64quantprecision` not among them
            f"{model_file} is in int8. On a processor without VNNI, Triton does not add its products exactly, and "
            "gives other labels than it had when it was checked (docs/int8.md). Give such a server the float model."
        )
    with replacing(target) as temporary:
        (temporary / "1").mkdir(parents=True)
        shutil.copyfile(model_file, temporary / "1" / "model.onnx")
        text = configuration(graph, name, threads=threads, instances=instances)
        (temporary / "config.pbtxt").write_text(text, encoding="utf-8")
    return target


def configuration(graph: onnx.GraphProto, name: str, *, threads: int, instances: int) -> str:
    """Return the text of `config.pbtxt`: axes of any length are -1."""
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', "max_batch_size: 0"]
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            tensor = value.type.tensor_type
            dims = ", ".join(str(axis.dim_value) if axis.HasField("dim_value") else "-1" for axis in tensor.shape.dim)
            lines.append(f'{kind} {{ name: "{value.name}" data_type: {TYPES[tensor.elem_type]} dims: [ {dims} ] }}')
    lines.append(f"instance_group {{ kind: KIND_CPU count: {instances} }}")
    lines.append(f'parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}')
    return "\n".join(lines) + "\n"

# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the processor, as everything here uses it."""

from pathlib import Path
from typing import TYPE_CHECKING

from bundle.pyraseg.core import PyrasegError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(model: str | Path | bytes, *, threads: int, remedy: str) -> "InferenceSession":
    """Load a model from its file or its bytes.

    Args:
        model: what to load.
        threads: how many threads it runs on.
        remedy: what a user does to get a model that can be loaded.

    Raises:
        PyrasegError: ONNX Runtime is missing, there is no such file, or it cannot be loaded.
    """
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise PyrasegError(f"There is no model at {model}. {remedy}")
    try:
        import onnxruntime
    except ImportError as error:
        raise PyrasegError("ONNX Runtime is missing: pip install onnxruntime.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # nearly any type and text, depending on how a file is broken
        name = "The graph" if isinstance(model, bytes) else model
        raise PyrasegError(f"{name} cannot be loaded as an ONNX model. {remedy}") from error

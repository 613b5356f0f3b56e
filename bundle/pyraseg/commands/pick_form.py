# SPDX-License-Identifier: Apache-2.0
"""Time the exported forms of a model on this machine, and name the fastest.

pyraseg pick-form models/dermoscopy --size 256 256

times models/dermoscopy.network.onnx and models/dermoscopy.int8.network.onnx, if they exist, in ONNX Runtime and, with
the extra `openvino`, in OpenVINO, also with bfloat16. All calls alternate. Only ONNX Runtime is picked: in it
`pyraseg export` and `pyraseg quantize` have compared the forms. OpenVINO computes them otherwise, and is timed only for
information (docs/int8.md).
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime import open_session

SUFFIXES = {"float": ".network.onnx", "int8": ".int8.network.onnx"}
#: Begins the names of the forms that were compared with PyTorch.
COMPARED = "ONNX Runtime"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("pick-form", __doc__)
    parser.add_argument("model", type=Path, help="path of the exported files, without their suffixes")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("W", "H"), help="pixels of an image")
    parser.add_argument("--batch", type=int, default=1, help="images in one batch")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--repeats", type=int, default=20)
    return parser.parse_args(argv)


def on_onnxruntime(path: Path, threads: int, shape: tuple[int, ...]) -> Callable[[], object]:
    """Return a call of a network on random pixels, (B, W, H) with the channels that it takes."""
    session = open_session(path, threads=threads, remedy="Export it again: pyraseg export.")
    (image,) = session.get_inputs()
    feed = {image.name: _random(shape, image.shape[1])}
    return lambda: session.run(None, feed)


def on_openvino(path: Path, threads: int, shape: tuple[int, ...], precision: str) -> Callable[[], object]:
    """Return a call of a network in OpenVINO, at a precision of its name ("f32", "bf16")."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    request = compiled.create_infer_request()
    image = _random(shape, compiled.input(0).get_partial_shape()[1].get_length())
    return lambda: request.infer({0: image})


def _random(shape: tuple[int, ...], channels: int) -> np.ndarray:
    batch, *sides = shape
    return np.random.default_rng(0).normal(size=(batch, channels, *sides)).astype(np.float32)


def candidates(files: dict[str, Path], threads: int, shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """Return what is to be timed, by name."""
    count = f"{threads} thread{'s' * (threads > 1)}"
    found = {f"{COMPARED}, {count}, {form}": on_onnxruntime(path, threads, shape) for form, path in files.items()}
    if importlib.util.find_spec("openvino"):
        found |= {
            f"OpenVINO, {count}, {form}": on_openvino(path, threads, shape, "f32") for form, path in files.items()
        }
        if "float" in files:
            found[f"OpenVINO, {count}, bfloat16"] = on_openvino(files["float"], threads, shape, "bf16")
    return found


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    files = {form: options.model.with_name(options.model.name + suffix) for form, suffix in SUFFIXES.items()}
    files = {form: path for form, path in files.items() if path.is_file()}
    if not files:
        raise PyrasegError(
            f"There is neither {options.model}.network.onnx nor {options.model}.int8.network.onnx. "
            "Write them first: pyraseg export, then pyraseg quantize."
        )
    shape = (options.batch, *options.size)
    calls = {name: call for threads in options.threads for name, call in candidates(files, threads, shape).items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in tqdm(range(-2, options.repeats), desc="timing", unit="round", disable=None):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if repeat >= 0:  # the first rounds allocate
                seconds[name].append(time.perf_counter() - start)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        print(f"{median:9.1f} ms  {name}")
    fastest = min((name for name in medians if name.startswith(COMPARED)), key=medians.__getitem__)
    print(f"Fastest of those that were compared with PyTorch: {fastest}, {files[fastest.rpartition(', ')[2]]}")

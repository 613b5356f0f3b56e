# SPDX-License-Identifier: Apache-2.0
"""Time parts of a segmentation, as `benchmarks.whole_series` asks line by line; runs in this and earlier revisions.

Called with "bundle" or "runtime" and the settings as JSON. Each line of the input, "files_to_files" or "network", is
answered by a line with seconds.
"""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def bundle(settings: dict[str, Any]) -> dict[str, Callable[[], float]]:
    """Return what times the bundle: `inferring` with its default outputs, and its inferer on the prepared series."""
    import torch
    from monai.bundle import ConfigWorkflow

    torch.set_num_threads(settings["threads"])
    places = {"dataset_dir": settings["series"], "output_dir": settings["output"], "model_file": settings["model"]}
    own = {"spacing": settings["spacing"], "device": "cpu", "bundle_root": settings["root"]}
    kept: list[Any] = []

    def prepared() -> Any:
        """Return the parser of a run that has begun as `monai.bundle run` begins it, with its weights loaded."""
        file = f"{settings['root']}/configs/inference.json"
        config = json.loads(Path(file).read_text(encoding="utf-8"))
        other = {"may_differ": ["spacing"]} if "may_differ" in config else {}
        workflow = ConfigWorkflow(file, run_id="inferring", logging_file=False, **places, **own, **other)
        workflow.initialize()
        logging.disable(logging.WARNING)
        kept[:] = [workflow]
        return workflow.parser

    def load(parser: Any) -> None:
        """Do what `run` does before the evaluator starts."""
        for number, step in enumerate(parser["run"]):
            name = step.get("_target_", "") if isinstance(step, dict) else ""
            if name.endswith(("load_model", "fold_batch_norm")):
                parser.get_parsed_content(f"run#{number}")

    def files_to_files() -> float:
        parser = prepared()
        start = time.perf_counter()
        parser.get_parsed_content("dataset#data")
        found = time.perf_counter()
        evaluator = parser.get_parsed_content("evaluator")
        load(parser)
        begun = time.perf_counter()
        evaluator.run()
        return time.perf_counter() - begun + found - start

    parser = prepared()
    load(parser)
    network, inferer = (parser.get_parsed_content(name) for name in ("network", "inferer"))
    (batch,) = parser.get_parsed_content("dataloader")
    image = batch["image"].as_tensor()
    network.eval()
    Path(settings["size"]).write_text(json.dumps([image.shape[1], *image.shape[2:]]), encoding="utf-8")

    def alone() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            inferer(image, network)
        return time.perf_counter() - start

    return {"files_to_files": files_to_files, "network": alone}


def runtime(settings: dict[str, Any]) -> dict[str, Callable[[], float]]:
    """Return what times the runtime: a series to NIfTI, and the exported network on slices of the same size."""
    import onnxruntime

    module = "bundle.pyraseg.runtime"
    segment, model = import_module(f"{module}.images").segment, import_module(f"{module}.model").Model
    writer = import_module(f"{module}.writers").nifti_writer
    try:
        find = import_module(f"{module}.find").find_inputs
    except ModuleNotFoundError:  # where it was before
        find = import_module("bundle.pyraseg.inference.find").find_inputs
    with contextlib.suppress(ModuleNotFoundError):
        import_module("bundle.pyraseg.core").keep_memory()  # as the program does
    logging.disable(logging.WARNING)
    path = model(settings["onnx"], threads=settings["threads"])
    write = writer(path.structures) if hasattr(path, "structures") else writer()  # which knew classes alone
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = settings["threads"], 1
    network = settings["onnx"].removesuffix(".onnx") + ".network.onnx"
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    output = Path(settings["output"])

    def files_to_files() -> float:
        start = time.perf_counter()
        (item,) = find(settings["series"], leave_out=settings["output"])
        write(segment(path, item["image"]), output / item["name"])
        return time.perf_counter() - start

    def alone() -> float:
        channels, width, height, depth = json.loads(Path(settings["size"]).read_text(encoding="utf-8"))
        image = np.random.default_rng(0).uniform(-1, 1, (1, channels, height, width)).astype(np.float32)
        (name,) = (item.name for item in session.get_inputs())
        start = time.perf_counter()
        for _ in range(depth):
            session.run(None, {name: image})
        return time.perf_counter() - start

    return {"files_to_files": files_to_files, "network": alone}


def main() -> None:
    program, settings = sys.argv[1], json.loads(sys.argv[2])
    answers = sys.stdout
    sys.stdout = sys.stderr  # what the programs print is no answer
    timers = {"bundle": bundle, "runtime": runtime}[program](settings)
    for line in sys.stdin:
        print(timers[line.strip()](), file=answers, flush=True)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Measure training and inference on a GPU: one command, at most 8 minutes, which goes on where a time limit cut it off.

Training images a second, in float32, in mixed precision (amp), compiled, and with augmentation on the device, are those
of `configs/train.json` on the phantom study: the trainer, the loader and the augmentation as they are used. Beside them
stand bare loops over one batch that lies on the device: the same network, and the U-Net of segmentation_models.pytorch
on the same encoder. The share of time that the card waits is what its kernels leave of a step's time. Inference is from
files to files, and the network in ONNX Runtime, with CUDA and with TensorRT where they are installed. A training that
was interrupted and resumed is compared with two that were not.

Each measurement is a process of its own; its result is in the results file as soon as it is there. Run
``python -m benchmarks.gpu`` from the repository root, and again until nothing is missing. Without a GPU it says so and
measures nothing; ``--device cpu --small`` runs all of it with small sizes, to try the program.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from torch import nn
from torch.profiler import ProfilerActivity, profile

from bundle.pyraseg.core import processors, write_json
from bundle.pyraseg.networks import import_with_torchvision
from bundle.pyraseg_tools.datasets.phantom import write_phantom_study

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
WORK = ROOT / "runs" / "gpu_benchmark"
PACKAGES = ("torch", "monai", "timm", "segmentation-models-pytorch", "onnxruntime", "onnxruntime-gpu", "tensorrt")
LEAST_SECONDS = 20  # of what is left, to begin another measurement
#: All parts of the network learn, from all patients, as in the longest stage of a training.
STAGES = [
    {
        "name": "all parts",
        "epoch_fraction": 1.0,
        "patient_fraction": 1.0,
        "augmentation_strength": 1.0,
        "learning_rates": {"encoder": 1e-3, "pyramid": 2e-3, "head": 2e-3},
    }
]
#: What `--small` makes of the sizes.
SMALL = {"batch_size": 2, "slice_size": [64, 64], "spacing": 8.0, "num_workers": 0}
#: Options of a training, by the name of a precision.
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"amp": False},
    "amp": {"amp": True},
    "amp, compiled": {"amp": True, "compile": True},
    "amp, augmentation on the device": {"amp": True, "augment_on_device": True},
}


class Run:
    """Where and how big the measurements are.

    Args:
        device: that is measured.
        small: sizes to try the program with.
        work: folder of the study, its cache and the runs.
    """

    def __init__(self, device: str, *, small: bool, work: Path) -> None:
        self.device = torch.device(device)
        self.work = work.resolve()
        self.sizes: dict[str, Any] = SMALL if small else {"num_workers": min(8, processors())}
        self.warm, self.timed, self.profiled = (1, 2, 1) if small else (20, 100, 10)
        self.patients, self.side = (8, 64) if small else (36, 256)

    @property
    def study(self) -> Path:
        """Return the folder of the phantom study, which is written when it is first asked for."""
        folder = self.work / "study"
        if not (folder / "datalist.json").is_file():
            write_phantom_study(folder, patients=self.patients, size=self.side)
        return folder

    def workflow(self, files: list[str], name: str, **options: Any) -> ConfigWorkflow:
        """Return a workflow of the bundle's own configs that is ready to run."""
        folder = self.work / name
        places = {"dataset_dir": str(self.study), "output_dir": str(folder / "out")}
        paths = [str(ROOT / "configs" / file) for file in files]
        options = {**places, "device": str(self.device), **options}
        workflow = ConfigWorkflow(paths, workflow_type="train", run_id="run", logging_file=False, **options)
        workflow.initialize()
        return workflow

    def training(self, name: str, **options: Any) -> ConfigWorkflow:
        """Return a training of the default task, from random weights."""
        places = {"cache_dir": str(self.work / "cache"), "model_file": str(self.work / name / "model.pt")}
        own = {"pretrained": False, "previews": 0, **self.sizes, **options}
        return self.workflow(["train.json"], name, **{"plan#stages": STAGES}, **places, **own)

    def wait(self) -> None:
        """Wait until the device has done all that it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_mb(self) -> int | None:
        """Return the most memory of the card that PyTorch had reserved."""
        return torch.cuda.max_memory_reserved(self.device) >> 20 if self.device.type == "cuda" else None

    def kernels(self, profiler: profile) -> float | None:
        """Return the seconds that kernels ran on the card."""
        if self.device.type != "cuda":
            return None
        return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6


def in_training(run: Run, precision: str) -> dict[str, Any]:
    """Return images a second of the product's own training, and how long the card waits in it."""
    batches = run.warm + run.timed + run.profiled + 1
    workflow = run.training(f"training {precision}".replace(" ", "_"), epochs=1, **PRECISIONS[precision])
    parser = workflow.parser
    batch = parser["batch_size"]
    parser["samples_per_epoch"] = batches * batch
    trainer = parser.get_parsed_content("train#trainer")
    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA] if run.device.type == "cuda" else None)
    times: list[float] = []

    def mark(engine: Engine) -> None:
        run.wait()
        times.append(time.perf_counter())

    def stop(engine: Engine) -> None:
        run.wait()
        profiler.stop()
        engine.terminate()

    once = Events.ITERATION_COMPLETED
    trainer.add_event_handler(once(once=run.warm), mark)
    trainer.add_event_handler(once(once=run.warm + run.timed), mark)
    trainer.add_event_handler(once(once=run.warm + run.timed), lambda _: profiler.start())
    trainer.add_event_handler(once(once=run.warm + run.timed + run.profiled), stop)
    trainer.run()
    seconds = (times[1] - times[0]) / run.timed
    found = {"images_per_second": batch / seconds, "batch_size": batch, "workers": parser["num_workers"]}
    return found | _waits(run, run.kernels(profiler), seconds)


def _waits(run: Run, kernels: float | None, seconds: float) -> dict[str, Any]:
    share = None if kernels is None else round(max(0.0, 1 - kernels / run.profiled / seconds), 3)
    return {"share_waiting": share, "peak_mb": run.peak_mb()}


def in_a_loop(run: Run, make: Callable[[Any], nn.Module], precision: str) -> dict[str, Any]:
    """Return images a second of a bare loop over one batch on the device, with the product's loss and optimizer."""
    parser = run.training("loop").parser
    network = make(parser).to(run.device, memory_format=torch.channels_last).train()
    loss, batch = parser.get_parsed_content("loss"), parser["batch_size"]
    amp_dtype = parser.get_parsed_content("amp_dtype")
    sides, channels = parser["slice_size"], parser.get_parsed_content("network_def#in_channels")
    image = torch.randn(batch, channels, *sides, device=run.device).to(memory_format=torch.channels_last)
    label = torch.randint(0, len(parser["class_names"]), (batch, 1, *sides), device=run.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    options = PRECISIONS[precision]
    scaler = torch.amp.GradScaler(run.device.type, enabled=options["amp"] and run.device.type == "cuda")
    called = torch.compile(network) if options.get("compile") else network

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(run.device.type, dtype=amp_dtype) if options["amp"] else nullcontext():
            value = loss(called(image), label)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()

    def steps(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            step()
        run.wait()
        return time.perf_counter() - start

    steps(run.warm)
    seconds = steps(run.timed) / run.timed
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA] if run.device.type == "cuda" else None) as p:
        steps(run.profiled)
    return {"images_per_second": batch / seconds, "batch_size": batch} | _waits(run, run.kernels(p), seconds)


def own(parser: Any) -> nn.Module:
    return parser.get_parsed_content("network_def")


def unet(parser: Any) -> nn.Module:
    """Return the U-Net of segmentation_models.pytorch on the encoder of the config."""
    smp = import_with_torchvision("segmentation_models_pytorch")
    channels, classes = parser.get_parsed_content("network_def#in_channels"), len(parser["class_names"])
    return smp.Unet(f"tu-{parser['encoder']}", encoder_weights=None, in_channels=channels, classes=classes)


def files_to_files(run: Run) -> dict[str, Any]:
    """Return the seconds of `inferring` on all series of the study with the included model, and those a series."""
    model = {"model_file": str(ROOT / "models" / "phantom.pt")}
    seconds = []
    for _ in range(2):  # the first one starts the card
        workflow = run.workflow(["inference.json"], "inferring", **model)
        workflow.parser.get_parsed_content("evaluator")
        start = time.perf_counter()
        workflow.run()
        run.wait()
        seconds.append(time.perf_counter() - start)
    series = len(workflow.parser.get_parsed_content("tally").names)
    return {"series": series, "seconds": round(seconds[-1], 2), "peak_mb": run.peak_mb()}


def in_onnxruntime(run: Run, provider: str) -> dict[str, Any]:
    """Return the milliseconds of the default network for a batch of slices, and how far its logits are off."""
    import onnxruntime

    from benchmarks.networks import export

    if provider not in onnxruntime.get_available_providers():
        return {"left_out": f"This ONNX Runtime has no {provider}: {onnxruntime.get_available_providers()}."}
    torch.manual_seed(0)
    parser = run.training("onnx").parser
    network = parser.get_parsed_content("network_def").eval()
    sides, channels = parser["slice_size"], parser.get_parsed_content("network_def#in_channels")
    image = torch.randn(parser["batch_size"], channels, *sides)
    path = run.work / "network.onnx"
    export(network, image[:1], path, dynamic=True)
    session = onnxruntime.InferenceSession(path, providers=[provider])
    if session.get_providers()[0] != provider:
        return {"left_out": f"{provider} is there, but cannot be loaded: {session.get_providers()} runs in its place."}
    feed = {session.get_inputs()[0].name: image.numpy()}
    for _ in range(run.warm):
        logits = session.run(None, feed)[0]
    start = time.perf_counter()
    for _ in range(run.timed):
        session.run(None, feed)
    milliseconds = 1e3 * (time.perf_counter() - start) / run.timed
    with torch.inference_mode():
        expected = network(image)
    error = ((torch.from_numpy(logits) - expected).abs().max() / expected.abs().max()).item()
    return {"ms_a_batch": round(milliseconds, 2), "batch_size": len(image), "largest_error": error}


def resuming(run: Run) -> dict[str, Any]:
    """Return by how much weights differ: of two trainings that ran through, and of one that was resumed.

    Where the first is 0, training on this device repeats itself to the bit, and the second should be 0, too.
    """
    epochs, steps = 2, 2 if run.sizes is SMALL else 10

    def train(name: str, *, until: int, resume: bool) -> dict[str, torch.Tensor]:
        workflow = run.training(name, epochs=epochs, val_interval=1, resume=resume)
        workflow.parser["samples_per_epoch"] = steps * workflow.parser["batch_size"]
        trainer = workflow.parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=until), lambda engine: engine.terminate())
        workflow.parser.get_parsed_content("train#checkpoints").check()
        trainer.run()
        network = workflow.parser.get_parsed_content("network_def")
        return {key: value.cpu().clone() for key, value in network.state_dict().items() if value.is_floating_point()}

    def largest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
        return max((one[key].double() - other[key].double()).abs().max().item() for key in one)

    through, again = (train(f"resume_{name}", until=epochs, resume=False) for name in ("a", "b"))
    half = train("resume_c", until=1, resume=False)
    resumed = train("resume_c", until=epochs, resume=True)
    return {
        "repeated": largest(through, again),
        "resumed": largest(through, resumed),
        "learned_meanwhile": largest(half, through),
    }


def card(run: Run) -> dict[str, Any]:
    """Return what is measured."""
    found: dict[str, Any] = {"device": str(run.device), "processor": platform.machine(), "processors": processors()}
    if run.device.type == "cuda":
        about = torch.cuda.get_device_properties(run.device)
        found |= {"card": about.name, "memory_mb": about.total_memory >> 20, "cuda": torch.version.cuda}
        found |= {"capability": list(torch.cuda.get_device_capability(run.device))}
        found |= {"bfloat16": torch.cuda.is_bf16_supported()}
    return found | {"versions": {name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


#: The measurements, the most important ones first.
STEPS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "card": card,
    "training, amp": lambda run: in_training(run, "amp"),
    "bare loop, amp": lambda run: in_a_loop(run, own, "amp"),
    "smp U-Net, bare loop, amp": lambda run: in_a_loop(run, unet, "amp"),
    "training, float32": lambda run: in_training(run, "float32"),
    "bare loop, float32": lambda run: in_a_loop(run, own, "float32"),
    "smp U-Net, bare loop, float32": lambda run: in_a_loop(run, unet, "float32"),
    "training, amp, augmentation on the device": lambda run: in_training(run, "amp, augmentation on the device"),
    "resuming": resuming,
    "files to files": files_to_files,
    "ONNX Runtime, CUDA": lambda run: in_onnxruntime(
        run, f"{'CUDA' if run.device.type == 'cuda' else 'CPU'}ExecutionProvider"
    ),
    "ONNX Runtime, TensorRT": lambda run: in_onnxruntime(run, "TensorrtExecutionProvider"),
    "training, amp, compiled": lambda run: in_training(run, "amp, compiled"),
    "bare loop, amp, compiled": lambda run: in_a_loop(run, own, "amp, compiled"),
}


def measure(options: argparse.Namespace) -> int:
    """Measure what the results file lacks while there is time, and return how much is still missing."""
    about = {"device": options.device, "small": options.small}
    found = (
        json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else about | {"steps": {}}
    )
    if {key: found.get(key) for key in about} != about:
        raise SystemExit(f"{options.output} holds results of {found.get('device')}. Give another --output.")
    steps, end = found["steps"], time.monotonic() + 60 * options.minutes
    for name in options.only:
        if name in steps and "failed" not in steps[name]:
            continue
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            break
        steps[name] = child(options, name, left)
        print(f"{name}: {json.dumps(steps[name])}", flush=True)
        if steps[name].get("failed") == TIME_IS_UP:
            del steps[name]
        write_json(options.output, found)
    missing = [name for name in options.only if name not in steps or "failed" in steps[name]]
    if missing:
        print(f"Missing: {', '.join(missing)}. The same command goes on with them.")
    print(f"Written to {options.output}")
    return len(missing)


TIME_IS_UP = "the time is up"


def child(options: argparse.Namespace, name: str, seconds: float) -> dict[str, Any]:
    """Run a measurement in a process of its own and return its result, or why there is none."""
    places = ["--device", options.device, "--work", str(options.work), *(["--small"] if options.small else [])]
    command = [sys.executable, "-m", "benchmarks.gpu", "--step", name, *places]
    start = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": TIME_IS_UP}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1], "exit_code": done.returncode}
    return json.loads(done.stdout.splitlines()[-1]) | {"wall_s": round(time.monotonic() - start, 1)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes, to try the program")
    parser.add_argument("--minutes", type=float, default=8, help="after which nothing more begins or goes on")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), metavar="MEASUREMENT")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the phantom study and of the runs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        print(f"There is no GPU that PyTorch {torch.__version__} can use: nothing is measured. See --help.")
        return 2
    if options.step:
        result = STEPS[options.step](Run(options.device, small=options.small, work=options.work))
        print(json.dumps(result))
        return 0
    return 1 if measure(options) else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Time our networks beside those of other libraries: eager, in ONNX Runtime, and a training step.

All networks have two classes and random weights. All calls take turns, in one process with the C library's allocator
as users of PyTorch have it and in one with the setting that programs of Pyraseg make: so whatever else the machine does
hits every network alike, and both are stated for all. Ours are exported with dynamic batch, height and width, as they
are delivered; the others with the fixed size, which is the best that all of them can. Every exported network is
compared with its eager form before it is timed. Run ``python -m benchmarks.networks`` from the repository root, on an
idle machine; the others come with ``pip install -e ".[benchmark]"``.
"""

import argparse
import json
import logging
import math
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import torch
from monai.networks.nets import FlexibleUNet, UNet
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.allocators import ALLOCATORS, Calls, interleaved_in_both
from bundle.pyraseg.networks import DeepLabV3Plus, DiceFocalLoss, PSPNet, PyramidBottleneck, import_with_torchvision
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

smp = import_with_torchvision("segmentation_models_pytorch")
segmentation = import_with_torchvision("torchvision.models.segmentation")

ROOT = Path(__file__).resolve().parents[1]
MODES = ("eager", "onnxruntime", "training")
VERSIONS = ("torch", "torchvision", "timm", "monai", "segmentation-models-pytorch", "onnx", "onnxscript", "onnxruntime")
PEER = "torchvision DeepLabV3 mobilenet_v3_large"
MOBILE = "PSPNet mobilenetv3_large_100"
SAME_WIDTH = "bottleneck 256"  # that of the peer's head
PAPERS_WIDTH = "bottleneck 512"
#: (the slower, the faster, mode, threads, how many times as fast it has to be).
COMPARISONS = (
    (PEER, f"{MOBILE} stride 16", "onnxruntime", 1, 1.25),
    (PEER, f"{MOBILE} stride 16, {SAME_WIDTH}", "onnxruntime", 1, 1.25),
    (PEER, f"{MOBILE} stride 32", "onnxruntime", 1, 2.5),
    (PEER, f"{MOBILE} stride 32, {SAME_WIDTH}", "onnxruntime", 1, 2.5),
    (f"{MOBILE} stride 16, unfolded", f"{MOBILE} stride 16", "onnxruntime", 1, 1.35),
    (f"{MOBILE} stride 16, {PAPERS_WIDTH}, unfolded", f"{MOBILE} stride 16, {PAPERS_WIDTH}", "onnxruntime", 1, 1.35),
    (PEER, f"{MOBILE} stride 16", "training", 1, 1.35),
    (PEER, f"{MOBILE} stride 16, {SAME_WIDTH}", "training", 1, 1.35),
)


class Output(nn.Module):
    """A network of torchvision that returns its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)["out"]


def unfolded(network: PSPNet) -> PSPNet:
    """Let a network build its pyramid at full size before it convolves it: the plain form of the same function."""
    for module in network.modules():
        if isinstance(module, PyramidBottleneck):
            module.folded = False
    return network


def ours() -> dict[str, nn.Module]:
    """Return our networks by name."""
    mobile = {"encoder": "mobilenetv3_large_100", "pretrained": False}
    lite = {"encoder": "tf_efficientnet_lite0", "pretrained": False}
    return {
        f"{MOBILE} stride 16": PSPNet(**mobile),
        f"{MOBILE} stride 16, unfolded": unfolded(PSPNet(**mobile)),
        f"{MOBILE} stride 32": PSPNet(**mobile, output_stride=32),
        f"{MOBILE} stride 32, unfolded": unfolded(PSPNet(**mobile, output_stride=32)),
        f"{MOBILE} stride 16, {SAME_WIDTH}": PSPNet(**mobile, bottleneck=256),
        f"{MOBILE} stride 32, {SAME_WIDTH}": PSPNet(**mobile, bottleneck=256, output_stride=32),
        f"{MOBILE} stride 16, {PAPERS_WIDTH}": PSPNet(**mobile, bottleneck=512),
        f"{MOBILE} stride 16, {PAPERS_WIDTH}, unfolded": unfolded(PSPNet(**mobile, bottleneck=512)),
        f"{MOBILE} stride 16, fpn": PSPNet(**mobile, decoder="fpn"),
        f"{MOBILE} stride 8, depth 2": PSPNet(**mobile, depth=2),
        "PSPNet tf_efficientnet_lite0 stride 16": PSPNet(**lite),
        "PSPNet tf_efficientnet_lite0 stride 16, fpn": PSPNet(**lite, decoder="fpn"),
        "PSPNet resnet18 stride 16": PSPNet(encoder="resnet18", pretrained=False),
        "DeepLabV3Plus mobilenetv3_large_100 stride 16": DeepLabV3Plus(**mobile),
    }


def others() -> dict[str, nn.Module]:
    """Return the networks of other libraries by name, with their own defaults but for encoder and classes."""
    weights = {"encoder_weights": None, "classes": 2}
    plain = {"weights": None, "weights_backbone": None, "num_classes": 2}
    return {
        PEER: Output(segmentation.deeplabv3_mobilenet_v3_large(**plain)),
        "torchvision LR-ASPP mobilenet_v3_large": Output(segmentation.lraspp_mobilenet_v3_large(**plain)),
        "smp PSPNet mobilenetv3_large_100, depth 3": smp.PSPNet("tu-mobilenetv3_large_100", **weights),
        "smp PSPNet mobilenetv3_large_100, depth 5": smp.PSPNet(
            "tu-mobilenetv3_large_100", encoder_depth=5, upsampling=32, **weights
        ),
        "smp PSPNet resnet18, depth 3": smp.PSPNet("resnet18", **weights),
        "MONAI FlexibleUNet efficientnet-b0": FlexibleUNet(3, 2, backbone="efficientnet-b0", pretrained=False),
        "MONAI UNet 16 to 256": UNet(
            spatial_dims=2, in_channels=3, out_channels=2, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2),
            num_res_units=2,
        ),
    }  # fmt: skip


def export(network: nn.Module, image: Tensor, path: Path, *, dynamic: bool) -> None:
    """Write a network as ONNX."""
    shapes = ({0: "batch", 2: "height", 3: "width"},) if dynamic else None
    # Two samples: an axis of length one would be taken for a constant.
    sample = torch.cat([image, image]) if dynamic else image
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (sample,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Load an ONNX network for a number of threads that rest between calls."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # as `open_session`
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads would slow down who is next
    options.add_session_config_entry("session.set_denormal_as_zero", "1")  # as torch here
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def check_export(network: nn.Module, image: Tensor, path: Path, name: str) -> None:
    """Raise where an exported network gives other logits than the eager one."""
    with torch.inference_mode():
        expected = network(image)
    loaded = session(path, 1)
    found = torch.from_numpy(loaded.run(None, {loaded.get_inputs()[0].name: image.contiguous().numpy()})[0])
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    if not error < 1e-3:
        raise RuntimeError(f"{name} exported to ONNX differs from itself by {error:.1e} of its largest logit.")


def interleaved(calls: dict[str, Callable[[], object]], *, repeats: int, what: str) -> dict[str, list[float]]:
    """Return the milliseconds of every call in every round; the order turns, so that nobody always follows another."""
    turns = list(calls.items())
    milliseconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in tqdm(range(-2, repeats), desc=what, unit="round", disable=None):
        turns.append(turns.pop(0))
        for name, call in turns:
            start = time.perf_counter()
            call()
            if repeat >= 0:  # the first rounds allocate
                milliseconds[name].append(1e3 * (time.perf_counter() - start))
    return milliseconds


def eager_call(network: nn.Module, image: Tensor) -> Callable[[], object]:
    def call() -> None:
        with torch.inference_mode():
            network(image)

    network.eval()
    return call


def onnx_call(path: Path, image: Tensor, threads: int) -> Callable[[], object]:
    loaded = session(path, threads)
    feed = {loaded.get_inputs()[0].name: image.contiguous().numpy()}
    return lambda: loaded.run(None, feed)


def training_call(network: nn.Module, image: Tensor, label: Tensor) -> Callable[[], object]:
    loss = DiceFocalLoss(batch=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(image), label).backward()
        optimizer.step()

    network.train()
    return call


def processor() -> str:
    """Return the processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def chosen(options: argparse.Namespace) -> dict[str, nn.Module]:
    """Return the networks that are wanted."""
    torch.manual_seed(0)
    memory_format = getattr(torch, options.memory_format)
    return {
        name: network.to(memory_format=memory_format).eval()
        for name, network in (ours() | others()).items()
        if not options.only or any(part in name for part in options.only)
    }


def random_images(options: argparse.Namespace, count: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, side, side, generator=generator)
    return images.to(memory_format=getattr(torch, options.memory_format))


def calls_of(options: argparse.Namespace, mode: str, threads: int, paths: dict[str, Path]) -> Calls:
    """Return a call of every network, in the process that times them."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if mode == "onnxruntime":
        image = random_images(options, 1, options.size)
        return {name: onnx_call(path, image, threads) for name, path in paths.items()}
    networks = chosen(options)
    if mode == "eager":
        image = random_images(options, 1, options.size)
        return {name: eager_call(network, image) for name, network in networks.items()}
    batch = random_images(options, options.batch_size, options.train_size)
    label = torch.randint(0, 2, (len(batch), 1, *batch.shape[2:]), dtype=torch.uint8)
    return {name: training_call(network, batch, label) for name, network in networks.items()}


def measure(options: argparse.Namespace) -> list[dict]:
    """Return medians and quartiles in ms of every network, for every mode, number of threads and allocator."""
    networks, own = chosen(options), ours()
    image = random_images(options, 1, options.size)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{index}.onnx" for index, name in enumerate(networks)}
        if "onnxruntime" in options.modes:
            for name, network in tqdm(networks.items(), desc="Exporting", unit="network", disable=None):
                export(network, image, paths[name], dynamic=name in own)
                check_export(network, image, paths[name], name)
        for threads in options.threads:
            for mode in options.modes:
                repeats = math.ceil(options.repeats / 3) if mode == "training" else options.repeats
                what = f"{mode}, {threads} threads"
                timings = interleaved_in_both(calls_of, options, mode, threads, paths, repeats=repeats, what=what)
                for allocator, found in timings.items():
                    row = {"mode": mode, "threads": threads, "allocator": allocator, "repeats": repeats}
                    rows.append(row | summary(found))
                    show(rows[-1])
    return rows


def summary(timings: dict[str, list[float]]) -> dict[str, dict]:
    """Return the median and the quartiles of every network, in ms."""
    shares = torch.tensor([0.25, 0.5, 0.75])
    quartiles = {name: torch.tensor(values).quantile(shares) for name, values in timings.items()}
    return {
        "median_ms": {name: round(median.item(), 2) for name, (_, median, _) in quartiles.items()},
        "quartiles_ms": {name: [round(q.item(), 2) for q in (low, high)] for name, (low, _, high) in quartiles.items()},
    }


def show(row: dict) -> None:
    """Print the medians of one mode, with the peer's time over each."""
    medians, quartiles = row["median_ms"], row["quartiles_ms"]
    way = ALLOCATORS[row["allocator"]]
    print(f"\n{row['mode']}, {row['threads']} thread(s), {way}: median of {row['repeats']} [quartiles] ms")
    print(f"  and {PEER} over each")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        low, high = quartiles[name]
        ratio = f"{medians[PEER] / median:6.2f}" if PEER in medians else ""
        print(f"  {name:56} {median:9.1f} [{low:.1f}, {high:.1f}]  {ratio}", flush=True)


def compare(rows: list[dict]) -> list[dict]:
    """Return what was asked for beside what was measured, with each allocator."""
    found = []
    for slow, fast, mode, threads, wanted in COMPARISONS:
        for row in rows:
            medians = row["median_ms"]
            if (row["mode"], row["threads"]) == (mode, threads) and slow in medians and fast in medians:
                ratio = round(medians[slow] / medians[fast], 2)
                where = {"mode": mode, "threads": threads, "allocator": row["allocator"]}
                found.append({"slower": slow, "faster": fast, **where, "ratio": ratio, "wanted": wanted})
    return found


def speed_table(report: dict) -> str:
    """Return the medians of a report as Markdown: a table an allocator, a line a network, with its ratio to the peer's.

    With either allocator the ratio is to the peer with the same one.
    """
    tables = []
    for allocator, way in ALLOCATORS.items():
        rows = [row for row in report["results"] if row["allocator"] == allocator]
        tables += [f"With {way} (`{allocator}`):", _table(rows)] if rows else []
    return "\n\n".join(tables)


def _table(rows: list[dict]) -> str:
    medians = {f"{row['mode']}, {row['threads']} thread{'s' * (row['threads'] > 1)}": row["median_ms"] for row in rows}
    lines = ["| network | " + " | ".join(medians) + " |", "|---" * (1 + len(medians)) + "|"]
    first = medians.get("onnxruntime, 1 thread") or next(iter(medians.values()))
    for name in sorted(first, key=first.get):
        cells = (f"{column[name]:.0f} ms ({column[PEER] / column[name]:.2f})" for column in medians.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="timed calls per network; a third for training steps")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--size", type=int, default=512, help="pixels per side of the image, eager and ONNX Runtime")
    parser.add_argument("--train-size", type=int, default=256, help="pixels per side of a training image")
    parser.add_argument("--batch-size", type=int, default=16, help="of a training step")
    parser.add_argument("--memory-format", choices=("channels_last", "contiguous_format"), default="channels_last")
    parser.add_argument("--only", nargs="+", metavar="PART", help="networks whose name holds one of these")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "networks.json")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the exporter's remarks
    torch.set_flush_denormal(True)
    versions = {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}
    print(", ".join(f"{name} {value}" for name, value in versions.items()), "|", processor(), flush=True)
    rows = measure(options)
    report = {key: getattr(options, key) for key in ("size", "train_size", "batch_size", "memory_format")}
    report |= {"versions": versions, "processor": processor(), "results": rows, "comparisons": compare(rows)}
    for line in report["comparisons"]:
        print(
            f"{line['mode']}, {line['threads']} thread(s), {ALLOCATORS[line['allocator']]}: {line['faster']} is "
            f"{line['ratio']} times as fast as {line['slower']} (wanted: {line['wanted']})"
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    if not options.only:
        page = ROOT / "docs" / "networks.md"
        page.write_text(
            replace_between_markers(page.read_text(encoding="utf-8"), "speed", speed_table(report)), encoding="utf-8"
        )
        print(f"The table in {page} is that of this run")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()

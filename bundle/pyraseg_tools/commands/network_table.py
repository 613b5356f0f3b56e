# SPDX-License-Identifier: Apache-2.0
"""Count parameters and multiply-adds of every encoder and network, and write the tables of docs/networks.md.

pyraseg network-table

Multiply-adds are half the operations that PyTorch's own FlopCounterMode counts while an image passes through: those of
convolutions and matrix products, not those of normalization, activation, pooling and interpolation. Nothing is computed
(the tensors are on the "meta" device) and no weights are loaded.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks import DeepLabV3Plus, PSPNet, import_with_torchvision

timm = import_with_torchvision("timm")

SIZES = (224, 512)
STRIDES = (16, 32)
ENCODERS = (
    "mobilenetv3_large_100",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "resnet101",
    "convnext_tiny",
)
#: Each head with its constructor's defaults, which the configs share; all with two classes.
HEADS: dict[str, tuple[type, dict[str, Any]]] = {
    "PSPNet, plain": (PSPNet, {}),
    "PSPNet, fpn": (PSPNet, {"decoder": "fpn"}),
    "DeepLabV3+": (DeepLabV3Plus, {}),
}
#: Millions of parameters and billions of multiply-adds at 224 that the recipe behind this project gives.
RECIPE = {
    "mobilenetv3_large_100": (2.9, 0.22),
    "efficientnet_b0": (5.3, 0.39),
    "resnet18": (11.7, 1.82),
    "convnext_tiny": (28.6, 4.47),
}
WHOLE, ALONE = "whole classifier", "encoder alone"


def count(network: nn.Module) -> dict[str, int]:
    """Return the parameters of a network on the meta device and its multiply-adds for one RGB image of each size."""
    network.eval()  # batch norm takes a pyramid bin of one pixel
    counts = {"parameters": sum(parameter.numel() for parameter in network.parameters())}
    for size in SIZES:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, size, size, device="meta"))
        counts[f"multiply_adds_{size}"] = counter.get_total_flops() // 2
    return counts


def encoder_rows(name: str) -> list[dict]:
    """Count an ImageNet classifier and the feature extractor that the networks are built on."""
    with torch.device("meta"):
        rows = [{"encoder": name, "part": WHOLE, "output_stride": 32, **count(timm.create_model(name))}]
        for stride in STRIDES:
            features = timm.create_model(name, features_only=True, output_stride=stride)
            rows.append({"encoder": name, "part": ALONE, "output_stride": stride, **count(features)})
    return rows


def network_rows(name: str) -> list[dict]:
    """Count every head on an encoder."""
    rows = []
    for head, (network, options) in HEADS.items():
        for stride in STRIDES:
            with torch.device("meta"):
                built = network(out_channels=2, encoder=name, pretrained=False, output_stride=stride, **options)
                rows.append({"encoder": name, "head": head, "output_stride": stride, **count(built)})
    return rows


def counts_table(rows: list[dict], part: str) -> str:
    """Return one line a row in Markdown; `part` is the key of the second column."""
    lines = [f"| encoder | {part} | stride | parameters | at 224 x 224 | at 512 x 512 |", "|---|---|---|---|---|---|"]
    for row in rows:
        first = [row["encoder"], row[part], str(row["output_stride"]), f"{row['parameters'] / 1e6:.2f} M"]
        lines.append(
            "| " + " | ".join(first + [f"{row[f'multiply_adds_{size}'] / 1e9:#.3g} G" for size in SIZES]) + " |"
        )
    return "\n".join(lines)


def recipe_table(rows: list[dict]) -> str:
    """Return the recipe's figures beside the two counts that each may stand for, and the nearer of these."""
    lines = [
        "| encoder | the recipe says | whole classifier | encoder alone | the figure is the |",
        "|---|---|---|---|---|",
    ]
    for name, figures in RECIPE.items():
        whole, alone = (row for row in rows if row["encoder"] == name and row["output_stride"] == 32)
        for key, unit, figure in (("parameters", 1e6, figures[0]), ("multiply_adds_224", 1e9, figures[1])):
            meant = min((whole, alone), key=lambda row, key=key, value=figure * unit: abs(row[key] - value))["part"]
            counts = " | ".join(f"{row[key] / unit:.4g}" for row in (whole, alone))
            what = "M parameters" if key == "parameters" else "G multiply-adds"
            lines.append(f"| {name} | {figure:g} {what} | {counts} | {meant} |")
    return "\n".join(lines)


def replace_between_markers(text: str, name: str, table: str) -> str:
    """Return a Markdown text with the table between the markers of this name replaced.

    Raises:
        PyrasegError: the markers are not there.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise PyrasegError(f"The page must hold one line {begin!r} and one {end!r} around the table.")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def tables(report: dict) -> dict[str, str]:
    """Return the tables of a report by the names of their markers."""
    encoders = report["encoders"]
    networks = report["networks"]
    return {
        "encoders": counts_table(encoders, "part"),
        "networks": counts_table(networks, "head"),
        "recipe": recipe_table(encoders),
    }


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("network-table", __doc__)
    parser.add_argument("--page", type=Path, default=Path("docs/networks.md"), help="page with the tables")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("benchmarks/results/networks_table.json"),
        help="file of all counts",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    if not options.page.is_file():
        raise PyrasegError(f"There is no page {options.page} to write the tables into.")
    progress = tqdm(ENCODERS, desc="Counting networks", unit="encoder", disable=None)
    report = {
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        "encoders": [row for name in ENCODERS for row in encoder_rows(name)],
        "networks": [row for name in progress for row in network_rows(name)],
    }
    page = options.page.read_text(encoding="utf-8")
    for name, table in tables(report).items():
        page = replace_between_markers(page, name, table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    options.page.write_text(page, encoding="utf-8")
    print(f"Tables of {len(ENCODERS)} encoders with {len(HEADS)} heads: {options.page}, {options.output}")

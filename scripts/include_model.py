# SPDX-License-Identifier: Apache-2.0
"""Include trained weights in the project: models/TASK.pt, stored small, for `pyraseg models` and `pyraseg segment`.

python -m scripts.include_model dermoscopy runs/dermoscopy/best.pt

Large tensors are rounded to int8 with a scale for each output channel (`bundle.pyraseg.networks.shrink`). Score what
was stored before you put its figures on the card: `pyraseg evaluate TASK` reads models/TASK.pt. The last line goes into
the metadata of the task.

python -m scripts.include_model heart_click runs/heart_click/best.pt --plain models/heart.pt

stores the trained network behind clicks as the included model has it, number by number, and the part that was trained
in half precision: without a prompt, both give the same.
"""

import argparse
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bundle.pyraseg.core import ModelSettings, PyrasegError, file_digest
from bundle.pyraseg.networks import restore, shrink
from bundle.pyraseg.training import read_model, save_model

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("weights", type=Path, help="what a training wrote")
    parser.add_argument("--plain", type=Path, help="the included model that clicks correct")
    options = parser.parse_args(argv)
    weights, trained = read_model(options.weights, remedy="Train the task first.")
    if trained is None:
        raise PyrasegError(f"{options.weights} does not say what it was trained with. Give what a training wrote.")
    path = ROOT / "models" / f"{options.task}.pt"
    small = shrink(weights) if options.plain is None else shrink_clicks(weights, options.plain)
    save_model(small, path, settings=ModelSettings(trained, {}))
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")
    print(f'"weights": {{"{path.relative_to(ROOT).as_posix()}": "{file_digest(path)}"}}')


def shrink_clicks(weights: Mapping[str, Tensor], plain: Path) -> OrderedDict[str, Tensor]:
    """Return the weights of a click network for a small file.

    Args:
        weights: state dict.
        plain: file of the network that is corrected, stored small.

    Raises:
        PyrasegError: the weights are of clicks for another network.
    """
    stored = torch.load(plain, map_location="cpu", weights_only=True)
    small = OrderedDict((f"plain.{name}", value) for name, value in stored.items())
    for name, value in restore(stored).items():
        own = weights.get(f"plain.{name}")
        if own is None or not own.equal(value.to(own.dtype)):
            raise PyrasegError(f"The clicks were not trained for {plain}: {name} differs. Give --plain their model.")
    own = {name: value for name, value in weights.items() if name.startswith("prompts.")}
    small.update({name: value.half() if value.is_floating_point() else value for name, value in own.items()})
    return small


if __name__ == "__main__":
    main()

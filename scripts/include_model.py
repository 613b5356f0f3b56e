# SPDX-License-Identifier: Apache-2.0
"""Include trained weights in the project: models/TASK.pt, stored small, for `pyraseg models` and `pyraseg segment`.

python -m scripts.include_model dermoscopy runs/dermoscopy/best.pt

Large tensors are rounded to int8 with a scale for each output channel (`bundle.pyraseg.networks.shrink`). Score what
was stored before you put its figures on the card: `pyraseg evaluate TASK` reads models/TASK.pt. The last line goes into
the metadata of the task.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.core import ModelSettings, PyrasegError, file_digest
from bundle.pyraseg.networks import shrink
from bundle.pyraseg.training import read_model, save_model

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("weights", type=Path, help="what a training wrote")
    options = parser.parse_args(argv)
    weights, trained = read_model(options.weights, remedy="Train the task first.")
    if trained is None:
        raise PyrasegError(f"{options.weights} does not say what it was trained with. Give what a training wrote.")
    path = ROOT / "models" / f"{options.task}.pt"
    save_model(shrink(weights), path, settings=ModelSettings(trained, {}))
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")
    print(f'"weights": {{"{path.relative_to(ROOT).as_posix()}": "{file_digest(path)}"}}')


if __name__ == "__main__":
    main()

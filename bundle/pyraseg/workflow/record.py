# SPDX-License-Identifier: Apache-2.0
"""What a run is made of: its configuration, its data, its software."""

import logging
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bundle.pyraseg.core import PyrasegError, file_digest, load, process_count, processors, write_json
from bundle.pyraseg.data import state_of_files
from bundle.pyraseg.datalists import split_hash
from bundle.pyraseg.labels import choice_text
from bundle.pyraseg.workflow.config import leaves
from bundle.pyraseg.workflow.running import bundle_root, running_parser

logger = logging.getLogger(__name__)

PACKAGES = ("pyraseg", "torch", "monai", "pytorch-ignite", "timm", "numpy", "pydicom")
#: Options that change neither the weights nor the figures of a run: a resumed one may have others.
FREE = {"resume", "num_workers", "tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0"}


def log_environment(*, device: torch.device | str, amp: bool, meta: Mapping[str, Any]) -> None:
    """Log the device, the precision and the versions of a run; warn where another pyraseg than the bundle's runs.

    Args:
        device: of the run.
        amp: whether it runs in mixed precision.
        meta: the metadata of the bundle, as MONAI reads them with its configs; empty where there are none.

    Raises:
        PyrasegError: the device is a GPU, and there is none.
    """
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise PyrasegError(
            f"The device is {str(device)!r}, but PyTorch {torch.__version__} finds no GPU that it can use. Set device "
            "to cpu, or install a build of PyTorch for the GPU."
        )
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{platform.machine()}, {torch.get_num_threads()} threads"
    logger.info("Device %s (%s), precision %s", device, hardware, "mixed (autocast)" if amp else "float32")
    if (busy := load()) >= processors():
        logger.warning(
            "This machine is busy: %.1f processes share its %d processors (OMP_NUM_THREADS=1 costs others least)",
            busy, processors(),
        )  # fmt: skip
    versions = {name: version(name) for name in PACKAGES}
    found = ", ".join(f"{name} {number}" for name, number in versions.items())
    logger.info("Python %s, %s", platform.python_version(), found)
    installed = versions["pyraseg"]
    if (stated := meta.get("version", installed)) != installed:
        logger.warning(
            "This bundle is of pyraseg %s, but %s is installed and runs: results may differ. Install the version that "
            "comes with the bundle, in an environment of its own: pip install, with the folder of the bundle",
            stated, installed,
        )  # fmt: skip


def run_record(cases: Mapping[str, Sequence[dict[str, str]]], *, seed: int) -> dict[str, Any]:
    """Return what a run is made of, as plain values.

    Args:
        cases: the parts of the split, as `load_cases` returns them.
        seed: of the run.

    Returns:
        `seed`; `split`: its hash and the number of cases of each part; `revision` of the bundle; `versions`; `config`:
        every value of the merged config but `FREE` ones, by its id, the SHA-256 of a teacher, and the number of
        processes if there are several;
        `data`: a hash of every case's files (their names, sizes and times of change) by part and image.
    """
    config = {key: value for key, value in running_parser().get().items() if key not in FREE and key != "_meta_"}
    values = {
        place: value if isinstance(value, str | int | float | bool | None) else str(value)
        for place, value in leaves(config)
    }
    if process_count() > 1:
        values["processes"] = process_count()
    teacher = running_parser().get_parsed_content("distill_from") if config.get("distill_from") else None
    if teacher is not None and Path(teacher).is_file():  # an evaluation needs none
        values["distill_from#sha256"] = file_digest(teacher)
    return {
        "seed": seed,
        "split": {"hash": split_hash(cases), **{part: len(items) for part, items in cases.items()}},
        "revision": revision(Path(bundle_root())),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "config": values,
        "data": {
            part: {f"{item['image']}{choice_text(item)}": state_of_files(item) for item in items}
            for part, items in cases.items()
        },
    }


def write_record(output_dir: str | Path, *, record: Mapping[str, Any], dataset_dir: str, model_file: str) -> None:
    """Write what an evaluation is made of, as `evaluation.json`.

    Args:
        output_dir: folder of the file.
        record: of the run, see `run_record`.
        dataset_dir: the name of this folder is added as `dataset`.
        model_file: the name and the SHA-256 of this file are added as `weights`.
    """
    weights = {"file": Path(model_file).name, "sha256": file_digest(model_file)}
    content = {"dataset": Path(dataset_dir).name, "weights": weights, **record}
    write_json(Path(output_dir) / "evaluation.json", content)


def revision(folder: Path) -> str:
    """Return the git revision of a folder, with "+changes" where files differ from it, or "none"."""
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository: a downloaded bundle
        return "none"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()

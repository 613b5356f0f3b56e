# SPDX-License-Identifier: Apache-2.0
"""What a run is made of: its configuration, its data, its software."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from bundle.pyraseg.core import distributed, replacing
from bundle.pyraseg.data import state_of_files
from bundle.pyraseg.datalists import split_hash
from bundle.pyraseg.workflow.callers import bundle_root, calling
from bundle.pyraseg.workflow.environment import PACKAGES

#: Options that change neither the weights nor the figures of a run: a resumed one may have others.
FREE = {"resume", "num_workers", "tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0"}


def run_record(cases: Mapping[str, Sequence[dict[str, str]]], *, seed: int) -> dict[str, Any]:
    """Return what a run is made of, as plain values.

    Args:
        cases: the parts of the split, as `load_cases` returns them.
        seed: of the run.

    Returns:
        `seed`; `split`: its hash and the number of cases of each part; `revision` of the bundle; `versions`; `config`:
        every value of the merged config but `FREE` ones, by its id, and the number of processes if there are several;
        `data`: a hash of every case's files (their names, sizes and times of change) by part and image.
    """
    parser = calling(ConfigParser)
    if parser is None:
        raise RuntimeError("run_record finds its config through the parser that calls it: name it in a config.")
    config = {key: value for key, value in parser.get().items() if key not in FREE and key != "_meta_"}
    leaves = dict(_leaves(config))
    if distributed.count() > 1:
        leaves["processes"] = distributed.count()
    return {
        "seed": seed,
        "split": {"hash": split_hash(cases), **{part: len(items) for part, items in cases.items()}},
        "revision": revision(Path(bundle_root())),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "config": leaves,
        "data": {part: {item["image"]: state_of_files(item) for item in items} for part, items in cases.items()},
    }


def write_record(output_dir: str | Path, *, record: Mapping[str, Any], dataset_dir: str, model_file: str) -> None:
    """Write what an evaluation is made of, as `evaluation.json`.

    Args:
        output_dir: folder of the file.
        record: of the run, see `run_record`.
        dataset_dir: the name of this folder is added as `dataset`.
        model_file: the name and the SHA-256 of this file are added as `weights`.
    """
    weights = {"file": Path(model_file).name, "sha256": hashlib.sha256(Path(model_file).read_bytes()).hexdigest()}
    content = {"dataset": Path(dataset_dir).name, "weights": weights, **record}
    with replacing(Path(output_dir) / "evaluation.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


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


def _leaves(config: Any, place: str = "") -> list[tuple[str, Any]]:
    """Return the values of a config with their ids, in the order of the file."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else None
    if items is None or not config:
        return [(place, config if isinstance(config, str | int | float | bool | None) else str(config))]
    return [leaf for key, value in items for leaf in _leaves(value, f"{place}#{key}" if place else str(key))]

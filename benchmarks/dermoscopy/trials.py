# SPDX-License-Identifier: Apache-2.0
"""One training of a comparison: by the dermoscopy config with a few keys changed, into a folder of its own, once."""

import csv
import hashlib
import json
import logging
import platform
import re
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from benchmarks.dermoscopy.networks import count_parameters
from benchmarks.networks import processor
from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.workflow import PACKAGES

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Keys of the config that say where and on what a training runs, not what it computes.
PLACES = ("dataset_dir", "output_dir", "cache_dir", "model_file", "device", "num_workers", "resume")


@dataclass(frozen=True)
class Trial:
    """One training: the comparison that it belongs to, its name there, changed keys of the config, and a seed."""

    comparison: str
    name: str
    overrides: Mapping[str, Any]
    seed: int = 0

    @property
    def folder(self) -> str:
        """Return the path of this trial below any root."""
        name = re.sub(r"[^\w.+-]+", "_", self.name)
        return f"{self.comparison}/{name}-seed{self.seed}"


@dataclass(frozen=True)
class Bench:
    """What all trials of a comparison share.

    Args:
        dataset_dir: folder with `images/` and `masks/`.
        work_dir: weights and TensorBoard files, by trial.
        results_dir: what is kept of a trial: `run.json`, `log.csv`, scores of every case of a part.
        cache_dir: preprocessed photographs, filled by the first trial.
        every: takes every n-th training case; the cases are in the order of their names.
        options: changed keys of the config, the same for all trials, such as `epochs`.
    """

    dataset_dir: Path
    work_dir: Path
    results_dir: Path
    cache_dir: Path
    every: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def train(self, trial: Trial) -> dict[str, Any]:
        """Train unless that was done, score the best epoch on validation cases, and return the trial's record.

        The record, `run.json`, is written last: a trial that was killed has none and is trained.

        Raises:
            PyrasegError: the record is that of a training with other settings.
        """
        results = self.results_dir / trial.folder
        workflow = self._workflow(trial, "train.json", "photographs.json", "dermoscopy.json")
        digest = config_hash(workflow.parser.get())
        if (results / "run.json").is_file():
            record = json.loads((results / "run.json").read_text(encoding="utf-8"))
            if record["config_hash"] != digest:
                raise PyrasegError(
                    f"{results} holds a finished training with other settings. Give another --results, or delete it."
                )
            logger.info("%s was trained before: see %s", trial.folder, results)
            return record
        shutil.rmtree(results, ignore_errors=True)  # what a killed one left
        logger.info("Training %s", trial.folder)
        workflow.initialize()
        workflow.run()
        self.score(trial, "validation")
        parser = workflow.parser
        log = (self.work_dir / trial.folder / "log.csv").read_text(encoding="utf-8")
        _write(results / "log.csv", log)
        record = {"name": trial.name, "seed": trial.seed, "config_hash": digest, "overrides": dict(trial.overrides)}
        record |= {"options": {key: value for key, value in self.options.items() if key not in PLACES}}
        record |= summary(log) | {"training_cases": len(parser.get_parsed_content("train#dataset#data"))}
        record |= {key: parser.get_parsed_content(key) for key in ("slice_size", "samples_per_epoch", "batch_size")}
        device = parser.get_parsed_content("device")
        image = torch.zeros(2, 3, *record["slice_size"], device=device)
        record |= {"parameters": count_parameters(parser.get_parsed_content("network"), image)}
        record |= {"split": split_hashes(parser.get_parsed_content("cases")), "versions": versions()}
        cuda = torch.device(device).type == "cuda"
        record |= {"device": torch.cuda.get_device_name() if cuda else processor()}
        record |= {"threads": torch.get_num_threads()}
        _write(results / "run.json", json.dumps(record, indent=2) + "\n")
        return record

    def score(self, trial: Trial, part: str) -> Path:
        """Score the trial's best epoch on every case of a part of the split, unless that was done; return the file.

        Raises:
            PyrasegError: the trial was not trained here.
        """
        path = self.results_dir / trial.folder / f"{part}.csv"
        output = self.work_dir / trial.folder
        if not path.is_file():
            changed = {"output_dir": str(output / part), "model_file": str(output / "best.pt")}
            changed |= {"validate#dataset#data": f"$@cases['{part}']", "uncertainty_rotations": []}
            workflow = self._workflow(
                trial, "train.json", "photographs.json", "dermoscopy.json", "evaluate.json", **changed
            )
            workflow.run_id = "evaluating"
            workflow.initialize()
            workflow.run()
            _write(path, compact(output / part / "scores.csv"))
        return path

    def _workflow(self, trial: Trial, *configs: str, **changed: Any) -> ConfigWorkflow:
        output = self.work_dir / trial.folder
        keys = {"dataset_dir": str(self.dataset_dir), "cache_dir": str(self.cache_dir), "output_dir": str(output)}
        keys |= {"model_file": str(output / "model.pt"), "seed": trial.seed}
        keys |= {"resume": True}  # from the last whole checkpoint of a trial that was killed
        keys |= {"cases#seed": 0}  # one split, whatever the seed of a training is
        if self.every > 1:
            keys |= {"train#dataset#data": f"$@cases['training'][::{self.every}]"}
        return ConfigWorkflow(
            config_file=[str(CONFIGS / name) for name in configs], **keys | self.options | trial.overrides | changed
        )


def summary(log: str) -> dict[str, Any]:
    """Return what the `log.csv` of a training comes to: its best epoch by validation Dice, and its pace."""
    rows = list(csv.DictReader(log.splitlines()))
    best = max((row for row in rows if row["dice"]), key=lambda row: float(row["dice"]))
    last = [row for row in rows if row["dice"]][-1]
    return {
        "epochs": len(rows),
        "best_epoch": int(best["epoch"]),
        "validation": {"dice": float(best["dice"]), "jaccard": float(best["iou/lesion"])},
        "last_epoch_validation": {"dice": float(last["dice"]), "jaccard": float(last["iou/lesion"])},
        "median_seconds_per_epoch": round(statistics.median(float(row["seconds"]) for row in rows), 1),
        "seconds": round(sum(float(row["seconds"]) for row in rows), 1),
    }


def compact(scores: Path) -> str:
    """Return name, Dice and Jaccard of every case from a `scores.csv`, as CSV."""
    rows = csv.DictReader(scores.read_text(encoding="utf-8").splitlines())
    lines = [f"{Path(row['case']).stem},{float(row['dice']):.6f},{float(row['iou']):.6f}" for row in rows]
    return "\n".join(["case,dice,jaccard", *lines]) + "\n"


def split_hashes(cases: Mapping[str, list[dict[str, str]]]) -> dict[str, dict[str, Any]]:
    """Return the number of cases of every part of a split and a SHA-256 of their names, sorted, one a line."""
    names = {part: sorted(Path(case["image"]).stem for case in of_part) for part, of_part in cases.items()}
    return {
        part: {"cases": len(of_part), "sha256": hashlib.sha256("".join(f"{n}\n" for n in of_part).encode()).hexdigest()}
        for part, of_part in names.items()
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Return a SHA-256 of a merged config without the keys that say where it runs."""
    kept = {key: value for key, value in config.items() if key not in PLACES and key != "_meta_"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    names = (*PACKAGES, "segmentation-models-pytorch")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

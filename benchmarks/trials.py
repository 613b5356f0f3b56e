# SPDX-License-Identifier: Apache-2.0
"""One training of a comparison: by the config of a task with a few keys changed, into a folder of its own, once."""

import copy
import csv
import hashlib
import json
import logging
import platform
import re
import shutil
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from benchmarks.costs import Clock
from benchmarks.networks import processor
from benchmarks.peers import count_parameters
from bundle.pyraseg.core import PyrasegError, replacing, task_files
from bundle.pyraseg.datalists import split_hash
from bundle.pyraseg.workflow import PACKAGES

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
#: Keys of the config that say where and on what a training runs, not what it computes.
PLACES = ("dataset_dir", "output_dir", "cache_dir", "model_file", "device", "num_workers", "resume")
#: Columns of a `scores.csv` that are kept of every case and class, as far as they hold anything.
COLUMNS = ("case", "class", "patient", "truth_voxels", "predicted_voxels")
FIGURES = ("dice", "iou", "thresholded_iou", "cldice")


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


def kept_scores(scores: Path) -> str:
    """Return of a `scores.csv` what a comparison needs, as CSV: overlap by case and class."""
    rows = list(csv.DictReader(scores.read_text(encoding="utf-8").splitlines()))
    figures = [name for name in FIGURES if any(row[name] for row in rows)]
    lines = [",".join((*COLUMNS, *figures))]
    for row in rows:
        case = Path(row["case"]).name.partition(".")[0]
        values = [f"{float(row[name]):.6f}" if row[name] else "" for name in figures]
        lines.append(",".join([case, *(row[name] for name in COLUMNS[1:]), *values]))
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Bench:
    """What all trials of a comparison share.

    Args:
        task: whose config they are trained by.
        dataset_dir: folder of the task's data.
        work_dir: weights and TensorBoard files, by trial.
        results_dir: what is kept of a trial: `run.json`, `log.csv`, scores of every case of a part.
        cache_dir: preprocessed images, filled by the first trial.
        every: takes every n-th training case; the cases are in the order of their names.
        options: changed keys of the config, the same for all trials, such as `epochs`.
        kept: makes the kept scores of a part from the file of an evaluation.
    """

    task: str
    dataset_dir: Path
    work_dir: Path
    results_dir: Path
    cache_dir: Path
    every: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    kept: Callable[[Path], str] = kept_scores

    def train(self, trial: Trial) -> dict[str, Any]:
        """Train unless that was done, score the best epoch on validation cases, and return the trial's record.

        The record, `run.json`, is written last: a trial that was killed has none and is trained, from its last whole
        checkpoint on.

        Raises:
            PyrasegError: the record is that of a training with other settings.
        """
        results, work = self.results_dir / trial.folder, self.work_dir / trial.folder
        workflow = self._workflow(trial, "train")
        config = workflow.parser.get()
        if (results / "run.json").is_file():
            record = json.loads((results / "run.json").read_text(encoding="utf-8"))
            require_same(record, config, results)
            logger.info("%s was trained before: see %s", trial.folder, results)
            return record
        shutil.rmtree(results, ignore_errors=True)  # what a killed one left
        logger.info("Training %s", trial.folder)
        digest, values = config_hash(config), knobs(config)
        workflow.initialize()
        parser = workflow.parser
        clock = Clock(parser, keep=work / "epochs.json")
        workflow.run()
        self.score(trial, "validation")
        log = (work / "log.csv").read_text(encoding="utf-8")
        _write(results / "log.csv", log)
        record = {"name": trial.name, "seed": trial.seed, "config_hash": digest, "overrides": dict(trial.overrides)}
        record |= {"options": {key: value for key, value in self.options.items() if key not in PLACES}}
        record |= summary(log) | {"training_cases": len(parser.get_parsed_content("train#dataset#data"))}
        record |= {"processor_minutes": round(sum(clock.kept().values()) / 60, 1)}
        size = parser.get_parsed_content("patch_size" if "patch_size" in config else "slice_size")
        record |= {"slice_size": size}
        record |= {key: parser.get_parsed_content(key) for key in ("samples_per_epoch", "batch_size")}
        device = parser.get_parsed_content("device")
        image = torch.zeros(2, parser.get_parsed_content("network_def#in_channels"), *size, device=device)
        record |= {"parameters": count_parameters(parser.get_parsed_content("network"), image)}
        cases = parser.get_parsed_content("cases")
        record |= {"split_hash": split_hash(cases), "split": split_hashes(cases), "versions": versions()}
        cuda = torch.device(device).type == "cuda"
        record |= {"device": torch.cuda.get_device_name() if cuda else processor()}
        record |= {"threads": torch.get_num_threads(), "knobs": values}
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
            changed = {"output_dir": str(output / part), "model_file": str(output / "best.pt"), "report": False}
            changed |= {"validate#dataset#data": f"$@cases['{part}']", "uncertainty_rotations": []}
            workflow = self._workflow(trial, "evaluate", **changed)
            workflow.run_id = "evaluating"
            workflow.initialize()
            workflow.run()
            _write(path, self.kept(output / part / "scores.csv"))
        return path

    def _workflow(self, trial: Trial, program: str, **changed: Any) -> ConfigWorkflow:
        output = self.work_dir / trial.folder
        keys = {"dataset_dir": str(self.dataset_dir), "cache_dir": str(self.cache_dir), "output_dir": str(output)}
        keys |= {"model_file": str(output / "model.pt"), "seed": trial.seed}
        keys |= {"resume": True}  # from the last whole checkpoint of a trial that was killed
        keys |= {"cases#seed": 0}  # one split, whatever the seed of a training is
        if self.every > 1:
            keys |= {"train#dataset#data": f"$@cases['training'][::{self.every}]"}
        files = [str(file) for file in task_files(CONFIGS, program, self.task)]
        return ConfigWorkflow(config_file=files, **keys | self.options | trial.overrides | changed)


def taken_out(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, None]:
    """Return the knobs that nothing uses once a config is changed, as options that take them out of use.

    Args:
        config: merged, as it is written.
        overrides: the changes, values by their keys.

    >>> taken_out({"a": 1, "b": 2, "c": 3, "net": {"x": "@a", "y": "@b"}, "z": "$@b + @c"}, {"net": {"w": "@c"}})
    {'a': None}
    """
    parser = ConfigParser(copy.deepcopy(dict(config)))
    for key, value in overrides.items():
        parser[key] = value
    before, after = json.dumps(config), json.dumps(parser.get())

    def uses(text: str, knob: str) -> bool:
        return re.search(rf"@{re.escape(knob)}(?!\w)", text) is not None

    return {knob: None for knob in config if uses(before, knob) and not uses(after, knob)}


def require_same(record: Mapping[str, Any], config: Mapping[str, Any], results: Path) -> None:
    """Refuse the record of a training whose knobs had other values than a config has; tell of other differences.

    Raises:
        PyrasegError: a knob of both differs, or the record keeps no knobs and the configs differ.
    """
    if record["config_hash"] == config_hash(config):
        return
    before, now = record.get("knobs", {}), knobs(config)
    changed = [name for name, value in before.items() if name in now and now[name] != value]
    if changed or not before:
        raise PyrasegError(
            f"{results} holds a finished training with other settings"
            + (f" ({', '.join(changed)})" if changed else "")
            + ". Give another --results, or delete it."
        )
    logger.warning(
        "%s was trained by a config that differs elsewhere than in the values of its knobs: delete it to train again",
        results,
    )


def summary(log: str) -> dict[str, Any]:
    """Return what the `log.csv` of a training comes to: its best epoch by validation Dice, and its pace.

    The Jaccard of several classes is their mean.
    """
    rows = list(csv.DictReader(log.splitlines()))
    validated = [row for row in rows if row["dice"]]

    def figures(row: dict[str, str]) -> dict[str, float]:
        of_classes = [float(value) for name, value in row.items() if name.startswith("iou/") and value]
        return {"dice": float(row["dice"]), "jaccard": statistics.mean(of_classes)}

    best = max(validated, key=lambda row: float(row["dice"]))
    return {
        "epochs": len(rows),
        "best_epoch": int(best["epoch"]),
        "validation": figures(best),
        "last_epoch_validation": figures(validated[-1]),
        "median_seconds_per_epoch": round(statistics.median(float(row["seconds"]) for row in rows), 1),
        "seconds": round(sum(float(row["seconds"]) for row in rows), 1),
    }


def split_hashes(cases: Mapping[str, list[dict[str, str]]]) -> dict[str, dict[str, Any]]:
    """Return the number of cases of every part of a split and a SHA-256 of their names, sorted, one a line."""
    names = {part: sorted(Path(case["image"]).stem for case in of_part) for part, of_part in cases.items()}
    return {
        part: {"cases": len(of_part), "sha256": hashlib.sha256("".join(f"{n}\n" for n in of_part).encode()).hexdigest()}
        for part, of_part in names.items()
    }


def knobs(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config that are numbers, texts or lists of these, without those that say where it runs."""
    plain = (bool, int, float, str, type(None))
    return {
        name: value
        for name, value in config.items()
        if name not in (*PLACES, "_meta_", "bundle_root", "note")
        and (isinstance(value, plain) or (isinstance(value, list) and all(isinstance(one, plain) for one in value)))
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

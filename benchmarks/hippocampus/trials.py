# SPDX-License-Identifier: Apache-2.0
"""Train one network of the comparison for so many minutes of one thread, and predict validation and test.

OMP_NUM_THREADS=1 python -m benchmarks.hippocampus.trials DynUNet data/mr_hippocampus --minutes 60 --work runs/peers

All networks are trained by the bundle's config of the task: the same data, patches, augmentation, loss, optimizer,
batch and stages; `network_def` alone is another one. `PSPNet on slices` is the network of `train.json`, with
`slices.json` of this folder. Every training takes the same processor time: a miniature of it measures what a step, a
validation and the rest of an epoch cost, and the number of epochs and of samples in them follow. Validations take a
tenth of the time at most. Other keys of the config may be given as options, `--key value`. A run that was stopped goes
on when it is started again.
"""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from benchmarks.costs import Clock, Costs, Length, fitting
from benchmarks.hippocampus.study import PREDICTED, SPLIT_SEED, label_file, read_split, write_run
from benchmarks.trials import CONFIGS, taken_out
from bundle.pyraseg.commands import split_options
from bundle.pyraseg.core import PyrasegError, replacing, task_files
from bundle.pyraseg.workflow import PACKAGES, plain_console

TASK = "hippocampus"
HERE = Path(__file__).resolve().parent
#: What every network has in its `network_def`, whatever else.
CHANNELS = {"in_channels": "$len(@windows)", "out_channels": "$len(@class_names)"}
PEERS = "benchmarks.hippocampus.networks"
#: The run in slices, whose overlay is in this folder.
SLICES = "PSPNet on slices"
#: The network of every run; None is that of its config.
NETWORKS: dict[str, dict[str, Any] | None] = {
    "VolumePSPNet": None,
    "DynUNet": {"_target_": f"{PEERS}.DynUNetPeer", **CHANNELS},
    "SegResNet": {"_target_": f"{PEERS}.SegResNetPeer", **CHANNELS},
    SLICES: None,
}
#: The miniature that is measured: it has all stages, and every epoch a few steps.
MINIATURE = {"epochs": 10, "val_interval": 10}
STEPS = 3


@dataclass(frozen=True)
class Trial:
    """One training and what it predicts.

    Args:
        name: one of `NETWORKS`.
        dataset_dir: folder with `images/` and `labels/`.
        work: folder of everything that all trials make; this one's has a folder of its own there.
        minutes: processor time of the training.
        seed: of the training; the split has always the same.
        options: further keys of the config.
    """

    name: str
    dataset_dir: Path
    work: Path
    minutes: float
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Return the folder of this run."""
        return self.work / f"{self.name.replace(' ', '_')}_{self.minutes:g}min_seed{self.seed}"

    def run(self) -> Path:
        """Measure, train and predict, unless that was done, and return the folder.

        Raises:
            PyrasegError: the minutes are too few, or the folder holds a run with other options.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._require_same()
        if (self.folder / "run.json").is_file():
            return self.folder
        costs = self._costs()
        knobs = self._knobs("train")
        length = fitting(costs, 60 * self.minutes, batch_size=knobs["batch_size"], val_interval=knobs["val_interval"])
        training = self._train(length)
        cases, split = read_split(self.dataset_dir)
        seconds = {part: self._predict(part, {case: image for case, (image, _) in cases[part].items()})
                   for part in PREDICTED}  # fmt: skip
        record = {"name": self.name, "minutes": self.minutes, "seed": self.seed, "threads": 1, "split": split}
        kept = ("batch_size", "patch_size", "slice_size", "spacing")
        training |= {key: knobs[key] for key in kept if knobs.get(key) is not None and not isinstance(knobs[key], str)}
        training |= {"options": dict(self.options), "measured": vars(costs)}
        training["versions"] = {name: version(name) for name in PACKAGES}
        write_run(self.folder, record | {"training": training, "seconds_a_volume": seconds["test"]})
        return self.folder

    def _require_same(self) -> None:
        path, text = self.folder / "options.json", json.dumps(self.options, indent=1, sort_keys=True) + "\n"
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            raise PyrasegError(f"{self.folder} holds a run with other options. Give another --work, or delete it.")
        path.write_text(text, encoding="utf-8")

    def _costs(self) -> Costs:
        """Return what a step, a validation and the rest of an epoch cost, measured once."""
        path = self.folder / "costs.json"
        if not path.is_file():
            output = self.folder / "miniature"
            shutil.rmtree(output, ignore_errors=True)
            batch = self._knobs("train")["batch_size"]
            changed = {**MINIATURE, "samples_per_epoch": STEPS * batch, "output_dir": str(output)}
            workflow = self._workflow("train", **changed, model_file=str(output / "model.pt"))
            clock = Clock(workflow.parser)
            workflow.run()
            _write(path, json.dumps(vars(clock.costs())))
            shutil.rmtree(output)
        return Costs(**json.loads(path.read_text(encoding="utf-8")))

    def _train(self, length: Length) -> dict[str, Any]:
        output = self.folder / "training"
        changed = {"output_dir": str(output), "model_file": str(output / "model.pt"), "resume": True, **vars(length)}
        workflow = self._workflow("train", **changed)
        clock = Clock(workflow.parser, keep=self.folder / "epochs.json")
        if not (output / "model.pt").is_file():
            workflow.run()
        network = workflow.parser.get_parsed_content("network_def")
        with (output / "log.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        best = max((row for row in rows if row["dice"]), key=lambda row: float(row["dice"]))
        batch = self._knobs("train")["batch_size"]
        return {
            "processor_minutes": sum(clock.kept().values()) / 60,
            "minutes": sum(float(row["seconds"]) for row in rows) / 60,
            "steps": length.epochs * (length.samples_per_epoch // batch),
            **vars(length),
            "best_epoch": int(best["epoch"]),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        }

    def _predict(self, part: str, images: Mapping[str, Path]) -> dict[str, Any]:
        """Predict a part of the split with the best epoch, unless that was done; return seconds a volume."""
        path = self.folder / f"{part}.json"
        if not path.is_file():
            given = self.folder / "images" / part
            for image in images.values():
                given.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(image, given / image.name)
            target = self.folder / "labels" / part
            shutil.rmtree(target, ignore_errors=True)
            weights = str(self.folder / "training" / "best.pt")
            changed = {"dataset_dir": str(given), "output_dir": str(target), "model_file": weights}
            workflow = self._workflow("inference", **changed, outputs=["labels"])
            clock = Clock(workflow.parser, evaluator="evaluator")
            workflow.run()
            absent = [case for case in images if not label_file(self.folder, part, case).is_file()]
            if absent:
                raise PyrasegError(f"Inference left no label map of {', '.join(absent)} in {target}.")
            spent, elapsed = clock.validations[0]
            found = {"cases": len(images), "processor_seconds": spent / len(images), "seconds": elapsed / len(images)}
            _write(path, json.dumps(found))
        return json.loads(path.read_text(encoding="utf-8"))

    def _files(self, program: str) -> list[str]:
        """Return the configs of a program, "train" or "inference", in the order in which they are merged."""
        files = task_files(CONFIGS, program, None if self.name == SLICES else TASK)
        if self.name == SLICES:
            files.append(HERE / ("slices.json" if program == "train" else "slices_inference.json"))
        return [str(file) for file in files]

    def _knobs(self, program: str) -> dict[str, Any]:
        """Return the merged config as it is written, with those of this trial's options that it has in use."""
        parser = ConfigParser()
        parser.read_config(self._files(program))
        config = parser.get()
        return config | {key: value for key, value in self.options.items() if config.get(key) is not None}

    def _workflow(self, program: str, **changed: Any) -> ConfigWorkflow:
        """Return the initialized workflow of a program, with this trial's network."""
        network = NETWORKS[self.name]
        config = self._knobs(program)
        # Inference takes the options that it knows; null takes a knob out of its use.
        shared = {key: of for key, of in self.options.items() if program == "train" or config.get(key) is not None}
        keys: dict[str, Any] = {"device": "cpu", **shared}
        if program == "train":
            keys |= {"dataset_dir": str(self.dataset_dir), "cache_dir": str(self.work / "cache"), "num_workers": 0}
            keys |= {"seed": self.seed, "cases#seed": SPLIT_SEED, "patience": None, "previews": 0}
        if network is not None:
            keys |= {**taken_out(config, {"network_def": network}), "network_def": network}
        run_id = "training" if program == "train" else "inferring"
        workflow = ConfigWorkflow(config_file=self._files(program), run_id=run_id, **keys | changed)
        workflow.initialize()
        return workflow


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    plain_console()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("dataset_dir", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--minutes", type=float, required=True, help="processor time of the training")
    parser.add_argument("--work", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--seed", type=int, default=0)
    given, options = split_options(parser, sys.argv[1:] if argv is None else argv)
    trial = Trial(given.network, given.dataset_dir.resolve(), given.work.resolve(), given.minutes, given.seed, options)
    print(f"Finished: {trial.run()}")


if __name__ == "__main__":
    main()

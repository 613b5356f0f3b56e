# SPDX-License-Identifier: Apache-2.0
"""What a sweep trains: a run for every setting and seed, all on one split, each in a folder of its own."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from bundle.pyraseg.commands import config_files
from bundle.pyraseg.core import PyrasegError, require_mendable, write_json
from bundle.pyraseg.data import state_of_files
from bundle.pyraseg.datalists import split_hash
from bundle.pyraseg.workflow import leaves, read_config, require_kind, verbatim
from bundle.pyraseg_tools.sweep.settings import Setting

#: What the sweep decides, and options cannot.
DECIDED = ("output_dir", "model_file", "resume")
#: Options that change neither the weights nor the figures of a run, or say where it is.
FREE = {*DECIDED, "bundle_root", "cache_dir", "num_workers", "_meta_"}
#: Options of MONAI's workflow that are no keys of a config.
OF_WORKFLOW = {"tracking"}


@dataclass(frozen=True)
class Trial:
    """Hold one run of a sweep: a setting and a seed.

    Attributes:
        setting: of the options that are swept.
        seed: of the training.
        folder: of all that the run writes.
        tasks: names of tasks and files of configs.
        options: of the configs, those of the setting among them, as values by keys.
        made_of: values of the config by their ids, hash of the split and of the state of the files; a result is of
            this run only where it was made of the same.
    """

    setting: Setting
    seed: int
    folder: Path
    tasks: tuple[str, ...]
    options: Mapping[str, Any]
    made_of: Mapping[str, Any]

    @property
    def training(self) -> Path:
        """Return the folder of what the training writes, see docs/training.md."""
        return self.folder / "training"

    @property
    def model(self) -> Path:
        """Return the weights of the best epoch, there once the training is over."""
        return self.folder / "model.pt"

    @property
    def validation(self) -> Path:
        """Return the folder of the scores on the validation part."""
        return self.folder / "validation"

    @property
    def log(self) -> Path:
        """Return the file of what the run has printed."""
        return self.folder / "log.txt"

    @property
    def failure(self) -> Path:
        """Return the file that says why the run ended early."""
        return self.folder / "failure.json"

    @property
    def record(self) -> Path:
        """Return the file that is written last: the run is finished where it is there."""
        return self.folder / "result.json"

    def __str__(self) -> str:
        return f"{self.setting}, seed {self.seed}"

    def begin(self) -> None:
        """Write down what the run is made of, before it starts; no old failure is left."""
        self.failure.unlink(missing_ok=True)
        write_json(self.folder / "made_of.json", self.made_of)

    def result(self) -> dict[str, Any] | None:
        """Return what the run came to, or None where it is not finished.

        Raises:
            PyrasegError: what lies in its folder is of other settings or data.
        """
        known = self.folder / "made_of.json"
        if known.is_file():
            before = json.loads(known.read_text(encoding="utf-8"))
            if changed := _changes(before, json.loads(json.dumps(self.made_of))):
                raise PyrasegError(
                    f"{self.folder} holds a run of other settings: {changed}. Give another --output_dir, or delete "
                    "that folder to train it again. Nothing was run."
                )
        return json.loads(self.record.read_text(encoding="utf-8")) if self.record.is_file() else None


def plan(
    tasks: Sequence[str], settings: Sequence[Setting], seeds: Sequence[int], folder: Path, options: Mapping[str, Any]
) -> list[Trial]:
    """Return the runs of a sweep, setting by setting, after a look at all that can be wrong with them beforehand.

    The seed of the config, or of `options`, stays that of the split: the trainings alone differ in their seeds.

    Args:
        tasks: names of tasks and files of configs, as `pyraseg train` takes them.
        settings: to be compared.
        seeds: of the trainings of each.
        folder: of the sweep.
        options: of the configs, the same for all.

    Raises:
        PyrasegError: an option is mistyped, out of its range or one that the sweep decides; or settings would be
            trained on different data.
    """
    if min(seeds) < 0:
        raise PyrasegError(f"A seed is a whole number from 0 on, not {min(seeds)}. Nothing was run.")
    if len(set(seeds)) != len(seeds):
        raise PyrasegError(f"A seed comes twice in --seeds {' '.join(map(str, seeds))}. Give each once.")
    swept = [key for key in settings[0].values if key == "seed"]
    decided = [key for key in (*options, *settings[0].values) if key in DECIDED] + swept
    if decided:
        own = "--seeds" if decided[0] == "seed" else "--output_dir"
        raise PyrasegError(f"The sweep decides {decided[0]} itself: leave it out; there is {own}. Nothing was run.")
    twice = [key for key in settings[0].values if key in options]
    if twice:
        raise PyrasegError(f"The option {twice[0]!r} has a value and is in --set. Give it once. Nothing was run.")
    files, root = config_files(tasks)
    trials: list[Trial] = []
    data: dict[str, str] = {}
    for setting in settings:
        given = {"bundle_root": verbatim(root), **options, **setting.values}
        parser = read_config(files, {key: value for key, value in given.items() if key not in OF_WORKFLOW})
        values = {place: value for place, value in leaves(parser.get()) if place.partition("#")[0] not in FREE}
        require_kind(parser)  # from here on the parser writes references in its own way
        of_split = {"cases#seed": parser["seed"]} if _splits_by_seed(parser.get()) else {}
        cases = _built(parser, "cases")
        if "plan" in parser:
            _built(parser, "plan")  # whose fields no one has looked at yet
        if not cases.get("validation"):
            raise PyrasegError("The data set has no validation part, by which settings are compared. Add one.")
        found = {"split": split_hash(cases), "data": _state(cases)}
        if trials and found != data:
            raise PyrasegError(
                f"{setting} is trained on other data, or another split, than {trials[0].setting}: their figures cannot "
                "be compared. Sweep each data set by itself. Nothing was run."
            )
        data = found
        for seed in seeds:
            own = {"seed": seed, **of_split}
            place = folder / setting.folder / f"seed{seed}"
            made_of = {"config": {**values, **own}, **found}
            trials.append(Trial(setting, seed, place, tuple(tasks), {**options, **setting.values, **own}, made_of))
    for trial in trials:
        trial.result()  # that what is there is of the same sweep
    return trials


def in_part(trials: Sequence[Trial], part: tuple[int, int]) -> list[Trial]:
    """Return the runs of a part, (number from 1, parts): every so many.

    >>> [[*in_part([1, 2, 3, 4, 5], (number, 2))] for number in (1, 2)]
    [[1, 3, 5], [2, 4]]
    """
    number, parts = part
    return list(trials[number - 1 :: parts])


def _built(parser: ConfigParser, key: str) -> Any:
    """Return what a config makes under a key; what a user can mend is said without MONAI's words around it."""
    try:
        return parser.get_parsed_content(key)
    except Exception as error:
        raise require_mendable(error) from error


def _splits_by_seed(config: Mapping[str, Any]) -> bool:
    """Return whether the split is drawn with the seed of the training; an option may have given it another."""
    cases = config.get("cases")
    return isinstance(cases, Mapping) and cases.get("seed") == "@seed"


def _state(cases: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Return a hash of the files of the parts that a sweep reads."""
    states = [state_of_files(item) for part in ("training", "validation") for item in cases[part]]
    return hashlib.sha256("".join(sorted(states)).encode()).hexdigest()[:16]


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in words what two runs are made of that differs, or ""."""
    old, new = before["config"], now["config"]
    changed = [
        f"{key} {old.get(key, 'nothing')} then, {new.get(key, 'nothing')} now"
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]
    changed += ["other files of the data set"] if before["data"] != now["data"] else []
    changed += ["another split"] if before["split"] != now["split"] else []
    return "; ".join(changed[:5]) + ("; ..." if len(changed) > 5 else "")

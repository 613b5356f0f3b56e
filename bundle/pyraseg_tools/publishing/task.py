# SPDX-License-Identifier: Apache-2.0
"""One task of the repository, its base and overlays merged into files that stand alone."""

from pathlib import Path
from typing import Any

from bundle.pyraseg.core import DEFAULT_TASK, PROGRAMS, ModelSettings, PyrasegError, overlays, task_files, task_names
from bundle.pyraseg.packaging import MODEL
from bundle.pyraseg.workflow import merge_files, read_config


class Task:
    """A task of the repository at `root`, told as a bundle of its own.

    In a package, a program is one config, and the weights are `models/model.pt`.

    Raises:
        PyrasegError: there is no task of that name.
    """

    def __init__(self, root: Path, name: str) -> None:
        known = task_names(root / "configs")
        if name not in known:
            raise PyrasegError(f"{root} has no task {name!r}. Its tasks are {', '.join(known)}.")
        self.root, self.name = root, name
        self.overlay = None if name == DEFAULT_TASK else name

    @property
    def card(self) -> Path:
        """The model card."""
        return self.root / "docs" / ("README.md" if self.overlay is None else f"{self.overlay}_card.md")

    @property
    def license(self) -> Path:
        """What the data, and the weights made from them, may be used for."""
        names = [self.name] if self.overlay is None else overlays(self.root / "configs", "metadata", self.name)
        return self.root / "docs" / "data_licenses" / f"{names[0]}.txt"  # a form of a task has the data of that task

    @property
    def model(self) -> Path:
        """The weights that the task's configs name."""
        return Path(read_config(self._files("inference")).get_parsed_content("model_file"))

    @property
    def settings(self) -> ModelSettings:
        """The settings of the task that belong to its weights."""
        return read_config(self._files("inference")).get_parsed_content("settings")

    def config(self, program: str) -> dict[str, Any]:
        """Return a key of `PROGRAMS` as the one config that it is in a package."""
        config = merge_files(self._files(program))
        if program == "metadata":
            own = config["weights"].get(f"models/{self.model.name}")  # those of another task are not this one's
            config["weights"] = {} if own is None else {MODEL: own}
            return config
        config["model_file"] = f"$@bundle_root + '/{MODEL}'"
        if "distill_from" in config:
            config["distill_from"] = None  # a package holds one model, and goes on from that
        if isinstance(config.get("dataset_dir"), dict):  # which the repository writes itself; here it has to be there
            config["dataset_dir"] = config["dataset_dir"]["folder"]
        if program == "evaluate":
            config["remedy"] = merge_files(self._files("inference"))["remedy"]  # its own speaks of several files
            del config["training"]  # in the base it means what `run` means, which here is to evaluate
        return config

    def other_overlays(self) -> list[Path]:
        """Return the configs that go on top of any task's, such as that of several GPUs."""
        own = {f"{part}.json" for parts in PROGRAMS.values() for part in parts}
        of_tasks = ["photographs", *task_names(self.root / "configs")]
        own |= {part.replace("TASK", task) for part in own if "TASK" in part for task in of_tasks}
        return sorted(path for path in (self.root / "configs").glob("*.json") if path.name not in own)

    def _files(self, program: str) -> list[Path]:
        return task_files(self.root / "configs", program, self.overlay)

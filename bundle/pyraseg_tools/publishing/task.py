# SPDX-License-Identifier: Apache-2.0
"""One task of the repository, its base and overlays merged into files that stand alone."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from bundle.pyraseg.core import PROGRAMS, PyrasegError, task_files
from bundle.pyraseg.packaging import MODEL
from bundle.pyraseg.workflow import merge_files

#: The task that is no overlay.
DEFAULT = "phantom"


def tasks(root: Path) -> list[str]:
    """Return the names of the tasks of a repository, the default one first."""
    return [
        DEFAULT,
        *sorted(path.name.removesuffix("_metadata.json") for path in _configs(root).glob("*_metadata.json")),
    ]


class Task:
    """A task of the repository at `root`, told as a bundle of its own.

    In a package, a program is one config, and the weights are `models/model.pt`. Whatever text names the repository's
    files (configs, weights) is retold with those of the package, commands in a model card included.

    Raises:
        PyrasegError: there is no task of that name.
    """

    def __init__(self, root: Path, name: str) -> None:
        if name not in tasks(root):
            raise PyrasegError(f"{root} has no task {name!r}. Its tasks are {', '.join(tasks(root))}.")
        self.root, self.name = root, name
        self.overlay = None if name == DEFAULT else name
        self.model_name = self._model_name()

    @property
    def card(self) -> Path:
        """The model card."""
        return self.root / "docs" / ("README.md" if self.overlay is None else f"{self.overlay}_card.md")

    @property
    def license(self) -> Path:
        """What the data, and the weights made from them, may be used for."""
        return self.root / "docs" / "data_licenses" / f"{self.name}.txt"

    @property
    def model(self) -> Path:
        """The weights that the task's configs name."""
        return self.root / self.model_name

    def config(self, program: str) -> dict[str, Any]:
        """Return a key of `PROGRAMS` as one config."""
        config = self._retold(self._merged(program))
        if program == "evaluate":
            config["remedy"] = self.config("inference")["remedy"]  # its own speaks of several files
            del config["training"]  # in the base it means what `run` means, which here is to evaluate
        return config

    def other_overlays(self) -> list[Path]:
        """Return the configs that go on top of any task's, such as that of several GPUs."""
        own = {f"{part}.json" for parts in PROGRAMS.values() for part in parts}
        of_tasks = ["photographs", *tasks(self.root)]
        own |= {part.replace("TASK", task) for part in own if "TASK" in part for task in of_tasks}
        return sorted(path for path in _configs(self.root).glob("*.json") if path.name not in own)

    def retell(self, text: str) -> str:
        """Return a text with the repository's configs and weights replaced by the package's."""
        text = re.sub(r'\\?"\[((?:\'configs/\w+\.json\',?\s*)+)\]\\?"', self._shorter, text)
        text = text.replace(self.model_name, MODEL)
        return (
            text
            if self.overlay is None
            else text.replace(f"configs/{self.overlay}_metadata.json", "configs/metadata.json")
        )

    def retell_page(self, text: str, present: Collection[str]) -> str:
        """Return a page of `docs/` as `retell` does; links to files that are not `present` in the package go."""

        def kept(link: re.Match[str]) -> str:
            target = link[2].partition("#")[0]
            path = target.removeprefix("../") if target.startswith("../") else f"docs/{target}"
            return link[0] if "://" in target or path in present else link[1]

        return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", kept, self.retell(text))

    def _merged(self, program: str) -> dict[str, Any]:
        return merge_files(task_files(_configs(self.root), program, self.overlay))

    def _retold(self, config: Any) -> Any:
        if isinstance(config, dict):
            if str(config.get("_target_")).startswith("bundle.pyraseg_tools."):
                return config["folder"]  # a data set that the repository writes itself: in a package it has to be there
            return {self._retold(key): self._retold(value) for key, value in config.items()}
        if isinstance(config, list):
            return [self._retold(value) for value in config]
        return self.retell(config) if isinstance(config, str) else config

    def _model_name(self) -> str:
        parser = ConfigParser(self._merged("inference"))
        parser["bundle_root"] = str(self.root)
        return Path(parser.get_parsed_content("model_file")).relative_to(self.root).as_posix()

    def _shorter(self, files: re.Match[str]) -> str:
        """Return the value of --config_file that does in the package what a list of files does in the repository."""
        names = [name.removesuffix(".json") for name in re.findall(r"configs/(\w+\.json)", files[1])]
        own = {f"{name}{suffix}" for name in ("photographs", self.overlay) for suffix in ("", "_inference")}
        names = [name for name in names if name not in own]
        if names == ["train", "evaluate"]:
            names = ["evaluate"]
        paths = [f"configs/{name}.json" for name in names]
        return (
            paths[0]
            if len(paths) == 1
            else files[0][: files[0].index("[")] + str(paths) + files[0][files[0].index("]") + 1 :]
        )


def _configs(root: Path) -> Path:
    return root / "configs"

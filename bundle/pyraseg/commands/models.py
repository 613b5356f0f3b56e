# SPDX-License-Identifier: Apache-2.0
"""List the available models: the included ones, and those that were trained below the current folder.

pyraseg models

prints for each what it segments, the kind of image, the training data, its measured figures, its use, its license and
its files.
"""

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.places import home, shipped
from bundle.pyraseg.core import DEFAULT_TASK, file_digest, overlays, task_names
from bundle.pyraseg.runtime import click_file

#: How the files of whole paths in int8 end, as `pyraseg quantize` calls them.
FORM = ".int8.onnx"


@dataclass(frozen=True)
class Model:
    """An included model.

    Attributes:
        name: what it is called.
        task: whose configs it is of.
        path: of its weights.
        about: the task's metadata.
        form: file of the same weights in int8, a graph from pixels to classes for ONNX Runtime, if there is one.
        clicks: file of the same weights, a graph from pixels to classes, beside which lies one for clicks, if there is
            one.
    """

    name: str
    task: str
    path: Path
    about: dict[str, Any]
    form: Path | None = None
    clicks: Path | None = None

    @property
    def takes_photographs(self) -> bool:
        return self.about.get("image_kind") == "photograph"  # a task of volumes leaves that to the base

    @cached_property
    def digest(self) -> str:
        return file_digest(self.path)

    @property
    def is_trained_here(self) -> bool:
        """Whether a training replaced the included weights: the metadata then speak of others."""
        return self.digest not in self.about["weights"].values()


def shipped_models() -> list[Model]:
    """Return the models of the tasks with included weights: those of a training below the current folder come first.

    The metadata have the hash of the included ones.
    """
    configs, roots = home() / "configs", (Path.cwd(), home(), shipped())
    license = json.loads((configs / "metadata.json").read_text(encoding="utf-8"))["weights_license"]
    found = []
    for file in [configs / "metadata.json", *sorted(configs.glob("*_metadata.json"))]:
        own = json.loads(file.read_text(encoding="utf-8"))
        task = file.name.removesuffix("_metadata.json") if file.name != "metadata.json" else DEFAULT_TASK
        about = {"weights_license": license, **_stood_on(configs, task), **own}
        graphs = [Path(name).name for name in own.get("weights", {}) if name.endswith(FORM)]
        for weights in own.get("weights", {}):
            path = next((path for root in roots if (path := root / weights).is_file()), None)
            if path is None or weights.endswith(".onnx"):
                continue
            form = next((form for name in graphs if (form := path.with_name(name)).is_file()), None)
            found.append(Model(path.stem, task, path, about, form, with_clicks(path)))
    return found


def _stood_on(configs: Path, task: str) -> dict[str, Any]:
    """Return the metadata of what a task stands on, see `overlays`: of `dermoscopy` for `dermoscopy_click`."""
    about: dict[str, Any] = {}
    for name in overlays(configs, "metadata", task):
        if name not in (task, DEFAULT_TASK):
            about |= json.loads((configs / f"{name}_metadata.json").read_text(encoding="utf-8"))
    return about


def with_clicks(weights: Path) -> Path | None:
    """Return the whole path of weights, in int8 if there is one, beside which lies a graph for clicks.

    It is where `pyraseg export` writes it: beside the weights, or below the current folder where they came along.
    """
    folders = weights.parent, Path.cwd() / "models"
    forms = (folder / f"{weights.stem}{suffix}" for folder in folders for suffix in (FORM, ".onnx"))
    return next((form for form in forms if form.is_file() and click_file(form).is_file()), None)


def trained_models() -> list[Path]:
    """Return the weights that trainings left in the current folder's `models/`."""
    own = {model.path.resolve() for model in shipped_models()}
    return [path for path in sorted(Path("models").glob("*.pt")) if path.resolve() not in own]


def told(model: Model) -> str:
    """Return what is to be known of a model, in a few lines."""
    about = model.about
    figures = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in about["eval_metrics"].items())
    lines = {
        "segments": about["label_classes"],
        "images": about["image_classes"],
        "trained on": "data of a training here" if model.is_trained_here else about["data_source"],
        "measured": (not model.is_trained_here and figures) or "nothing",
        "use": about["intended_use"],
        "license": f"{about['weights_license']}; terms of its data: docs/data_licenses",
        "file": f"{model.path} ({model.path.stat().st_size / 1e6:.1f} MB)",
    }
    if model.form is not None and not model.is_trained_here:
        lines["fast form"] = f"{model.form} ({model.form.stat().st_size / 1e6:.1f} MB), int8 for ONNX Runtime"
    if model.clicks is not None:
        lines["clicks"] = f"{model.clicks}, for pyraseg click and pyraseg segment --click"
    return "\n".join([f"{model.name}: {about['task']}", *(f"  {key:11} {value}" for key, value in lines.items())])


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    return command_parser("models", __doc__).parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments(argv)
    print("\n\n".join(told(model) for model in shipped_models()) or "No model is included.")
    tasks = task_names(home() / "configs")
    for path in trained_models():
        task = "" if path.stem in (*tasks, "model") else " --task TASK"
        print(
            f"\n{path} ({path.stat().st_size / 1e6:.1f} MB): trained here; pyraseg segment IN OUT --model {path}{task}"
        )
    print("\nSegment with one: pyraseg segment IN OUT --model NAME")

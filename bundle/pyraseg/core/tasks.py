# SPDX-License-Identifier: Apache-2.0
"""Tasks: which configs each is made of, and how its model is trained."""

import json
from collections.abc import Sequence
from pathlib import Path

#: The task that needs no overlay.
DEFAULT_TASK = "phantom"
#: Overlays that tasks share, and the knob of a task's overlay that asks for one: 2-D images say what kind they are of,
#: networks that see volumes in 3-D the size of what they see, and networks for corrections which model is corrected.
SHARED = {"photographs": "image_kind", "volumes": "patch_size", "click": "click_from"}
#: What is run, and the files that it is made of; TASK is left out for the default task. What TASK shares with others,
#: such as `photographs.json` (`photographs_inference.json`), comes before it, see `task_files`.
PROGRAMS = {
    "train": ("train", "TASK"),
    "evaluate": ("train", "TASK", "evaluate"),
    "inference": ("inference", "TASK_inference"),
    "metadata": ("metadata", "TASK_metadata"),
}


def task_names(folder: Path) -> list[str]:
    """Return the names of the tasks of a folder of configs, the default one first."""
    return [DEFAULT_TASK, *sorted(file.name.removesuffix("_metadata.json") for file in folder.glob("*_metadata.json"))]


def task_files(folder: Path, program: str, task: str | None) -> list[Path]:
    """Return the configs of a task, in the order in which they are merged.

    MONAI has no way to say in a config which others it is laid upon. A task of 2-D images says `image_kind` in its
    overlay on train.json, and all of these stand on the shared `photographs.json`; one of volumes in 3-D says
    `patch_size`, and stands on `volumes.json`.

    Args:
        folder: `configs/` of the bundle.
        program: a key of `PROGRAMS`.
        task: such as "dermoscopy"; None for the default one.
    """
    files = []
    for part in PROGRAMS[program]:
        if "TASK" not in part:
            files.append(folder / f"{part}.json")
        elif task is not None:
            files += [folder / f"{part.replace('TASK', name)}.json" for name in overlays(folder, program, task)]
    return files


def overlays(folder: Path, program: str, task: str) -> list[str]:
    """Return the names of what a task lays over the base: what it shares with others, see `SHARED`, and its own.

    A task that is another form of one begins with its name and stands on it: `dermoscopy_fast` on `dermoscopy`.
    """
    names = [name for name in task_names(folder) if f"{task}_".startswith(f"{name}_")]
    names = [*names, task] if task not in names else names  # sorted: the shorter stands first
    found: list[str] = []
    for name in names:
        file = folder / f"{name}.json"
        said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        asked = [each for each, knob in SHARED.items() if knob in said and program != "metadata"]
        found += [*(each for each in asked if each not in found), name]
    return found


def how_to_train(model_file: str | Path, bundle_root: str | Path) -> str:
    """Return what to do where a model is missing: the command that trains it.

    Weights are named after their task, `models/dermoscopy.pt`; under another name they are of the default one.
    """
    folder, task = Path(bundle_root) / "configs", Path(model_file).stem
    files = task_files(folder, "train", task if (folder / f"{task}_inference.json").is_file() else None)
    name = DEFAULT_TASK if len(files) == 1 else task
    return (
        f"Train one first, `pyraseg train{'' if name == DEFAULT_TASK else f' {name}'}` or `python -m monai.bundle run "
        f"training --config_file {config_option(files)}`, or give the weights of another with --model_file."
    )


def config_option(files: Sequence[Path]) -> str:
    """Return what follows --config_file in a shell, in the bundle's folder.

    >>> print(config_option([Path("configs/train.json"), Path("configs/spleen.json")]))
    "['configs/train.json','configs/spleen.json']"
    """
    names = [f"configs/{file.name}" for file in files]
    return names[0] if len(names) == 1 else '"' + str(names).replace(" ", "") + '"'

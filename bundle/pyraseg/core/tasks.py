# SPDX-License-Identifier: Apache-2.0
"""Tasks: which configs each is made of, and how its model is trained."""

import json
from collections.abc import Sequence
from pathlib import Path

#: The task that needs no overlay.
DEFAULT_TASK = "phantom"
#: The overlay that tasks of 2-D images share.
PHOTOGRAPHS = "photographs"
#: What is run, and the files that it is made of; TASK is left out for the default task. Where TASK is about 2-D images,
#: `photographs.json` (`photographs_inference.json`) comes before it, see `task_files`.
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
    overlay on train.json, and all of these stand on the shared `photographs.json`.

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
    """Return the names of what a task lays over the base: that of 2-D images, if it is about them, and its own.

    A task that is another form of one begins with its name and stands on it: `dermoscopy_fast` on `dermoscopy`.
    """
    names = [name for name in task_names(folder) if f"{task}_".startswith(f"{name}_")]
    names = [*names, task] if task not in names else names  # sorted: the shorter stands first
    own = (folder / f"{name}.json" for name in names)
    of_images = any("image_kind" in json.loads(file.read_text(encoding="utf-8")) for file in own if file.is_file())
    return [PHOTOGRAPHS, *names] if of_images and program != "metadata" else names


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

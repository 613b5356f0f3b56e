# SPDX-License-Identifier: Apache-2.0
"""Where a command finds configs and models: in the current folder, else what came with the installed package."""

import json
from collections.abc import Sequence
from pathlib import Path

import bundle.pyraseg
from bundle.pyraseg.core import DEFAULT_TASK, PyrasegError, nearest_hint, overlays, task_names

#: The configs that stand first in a program; tasks are laid over them.
BASES = {"train": "train", "evaluate": "train", "calibrate": "train", "guard": "train", "inference": "inference"}


def shipped() -> Path:
    """Return the folder of the configs and models that came with the code: of a wheel, or the clone itself."""
    code = Path(bundle.pyraseg.__file__).parent
    return code / "shipped" if (code / "shipped").is_dir() else code.parents[1]


def home() -> Path:
    """Return the folder whose `configs/` a command uses: the current one, if it is a clone or a model package."""
    return Path.cwd() if Path("configs", "inference.json").is_file() else shipped()


def config_files(names: Sequence[str | Path], *, program: str = "train") -> tuple[list[Path], Path]:
    """Return the configs of a program, and the root of the bundle that it works in.

    Args:
        names: of tasks, such as "dermoscopy", and files, laid over the base of the program. A file of the base itself
            may stand first: then only what is named is taken.
        program: a key of `BASES`.

    Returns:
        The files, in the order in which they are merged; and the folder of `data/`, `models/` and `runs/`: the one
        above the configs where the base is named as a file, else the current one.

    Raises:
        PyrasegError: there is no such task or file.
    """
    configs = home() / "configs"
    base, last = (configs / f"{name}.json" for name in (BASES[program], program))
    if not base.is_file():
        raise PyrasegError(f"There is no config at {base}. Install pyraseg from its wheel or clone, or give the files.")
    files = [file for name in names if name != DEFAULT_TASK for file in _files(str(name), configs, program)]
    files = _with_shared(files, configs, program)
    if files and files[0].name in (base.name, last.name):
        return files, files[0].resolve().parents[1] if Path(names[0]).is_file() else Path.cwd()
    if base == last:
        return [base, *files], Path.cwd()
    whole = "network_def" in json.loads(last.read_text(encoding="utf-8"))  # in a model package each stands alone
    return [last, *files] if whole else [base, *files, last], Path.cwd()


def _with_shared(files: Sequence[Path], configs: Path, program: str) -> list[Path]:
    """Return the files of configs with what an overlay for volumes in 3-D stands on before it, unless it is there.

    Such an overlay has the knob `patch_size` and no network of its own, as those of tasks have it, see `overlays`.
    """
    shared = configs / f"volumes{'_inference' if program == 'inference' else ''}.json"
    found: list[Path] = []
    for file in files:
        if file.suffix == ".json" and shared.is_file() and shared.name not in [each.name for each in found]:
            said = json.loads(file.read_text(encoding="utf-8"))
            if "patch_size" in said and "network_def" not in said:
                found.append(shared)
        found.append(file)
    return found


def _files(name: str, configs: Path, program: str) -> list[Path]:
    known = task_names(configs)
    if not name.endswith((".json", ".yaml", ".yml")):
        if name not in known:
            raise PyrasegError(f"There is no task {name!r}.{nearest_hint(name, known)} Tasks: {', '.join(known)}.")
        suffix = "_inference" if program == "inference" else ""
        return [configs / f"{part}{suffix}.json" for part in overlays(configs, program, name)]
    found = [path for path in (Path(name), configs.parent / name) if path.is_file()]
    if not found:
        raise PyrasegError(f"There is no config at {name}. Correct the path, or name a task: {', '.join(known)}.")
    return found[:1]

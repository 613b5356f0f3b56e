# SPDX-License-Identifier: Apache-2.0
"""Run the commands of the README as a user does: another process, another directory."""

import shutil
import subprocess
from pathlib import Path

from monai.bundle import ConfigParser

from bundle.pyraseg.core import task_files
from tests.helpers.warm import python

ROOT = Path(__file__).resolve().parents[2]


def monai_bundle(command: str, *options: str, cwd: Path, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `python -m monai.bundle COMMAND OPTIONS` in `cwd`, as `python` does; the caller looks at the return code."""
    return python("-m", "monai.bundle", command, *options, cwd=cwd, fresh=fresh)


def as_yaml(folder: Path, *names: str) -> Path:
    """Export configs as YAML into a new folder, with the metadata and the logging settings; return the folder."""
    folder.mkdir()
    for name in names:
        content = ConfigParser.load_config_file(ROOT / "configs" / f"{name}.json")
        ConfigParser.export_config_file(content, str(folder / f"{name}.yaml"), fmt="yaml")
    for name in ("metadata.json", "logging.conf"):
        shutil.copy(ROOT / "configs" / name, folder)
    return folder


def config_files(*names: str, folder: Path = ROOT / "configs") -> str:
    """Return the value of --config_file for one or several configs."""
    paths = [str(folder / name) for name in names]
    return paths[0] if len(paths) == 1 else str(paths)


def task_config(program: str, task: str) -> str:
    """Return the value of --config_file for "train", "evaluate" or "inference" of a task."""
    return config_files(*(file.name for file in task_files(ROOT / "configs", program, task)))

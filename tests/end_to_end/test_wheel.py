# SPDX-License-Identifier: Apache-2.0
"""The wheel: installed beside the packages of this environment, without the clone, used from an empty folder."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from bundle.pyraseg_tools.datasets import write_photograph_study
from tests.helpers.commands import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what git tracks, install it, and return its `pyraseg`."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if name.startswith(("bundle/", "configs/", "models/", "docs/data_licenses/")) or "/" not in name:
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "copy" / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "copy")]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True, capture_output=True)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    # The packages of this environment, behind its own: a .pth adds a folder and does not read the .pth files in it, so
    # the editable installation of the clone stays out.
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "venv" / "bin" / "pyraseg"


def run(program: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *words], cwd=cwd, capture_output=True, text=True, check=False)


def test_from_an_empty_folder(program, tmp_path):
    write_photograph_study(tmp_path / "drawn", people=3, photographs=1)
    photograph = min((tmp_path / "drawn" / "images").iterdir())
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "segment photo.jpg out" in run(program, "--help", cwd=empty).stdout
    installed = program.parents[1]
    models = run(program, "models", cwd=empty)
    assert models.returncode == 0 and f"file        {installed}" in models.stdout
    before = {path: path.stat().st_mtime_ns for path in installed.rglob("*") if "__pycache__" not in path.parts}
    done = run(program, "segment", str(photograph), "out", cwd=empty)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(empty, "out", f"{photograph.stem}.png").is_file()
    trained = run(program, "train", "--dataset_dir", "nowhere", cwd=empty)
    assert trained.returncode == 1 and "nowhere" in trained.stderr and "Traceback" not in trained.stderr
    assert {path.name for path in empty.iterdir()} <= {"out", "runs"}
    after = {path: path.stat().st_mtime_ns for path in installed.rglob("*") if "__pycache__" not in path.parts}
    assert {path: when for path, when in after.items() if path.is_file()} == {
        path: when for path, when in before.items() if path.is_file()
    }

# SPDX-License-Identifier: Apache-2.0
"""The runtime as one file: what is in it, that it runs alone, and what it needs to be installed."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from bundle.pyraseg.deployment.single_file import ROOT, imports, modules
from bundle.pyraseg_tools.commands.zipapp import main
from tests.helpers.dicom_files import uid, write_series
from tests.helpers.runtime_series import check, gray, png, series

#: What the extra `runtime` installs (ONNX Runtime brings protobuf, `google`), and what some outputs need besides.
ALLOWED = {"google", "gdcm", "lazy_loader", "numpy", "pydicom", "PIL", "onnxruntime", "scipy", "nibabel", "highdicom"}


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dist") / "pyraseg.pyz"
    main([str(path)])
    return path


def test_imports_nothing_heavy():
    packages = {name.partition(".")[0] for path in modules().values() for name in imports(path)}
    assert packages - set(sys.stdlib_module_names) - {"bundle"} == ALLOWED
    assert len(modules()) < 70
    rooms = {name.split(".")[2] for name in modules() if name.count(".") > 2}
    assert rooms <= {"core", "dicom", "labels", "runtime"}


def test_the_file_holds_the_modules_and_the_license(zipapp, tmp_path):
    with zipfile.ZipFile(zipapp) as archive:
        names = set(archive.namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in modules().values()}
    assert names == expected | {"__main__.py", "LICENSE", "bundle/"}
    main([str(tmp_path / "again.pyz")])
    assert (tmp_path / "again.pyz").read_bytes() == zipapp.read_bytes()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert zipapp.with_suffix(".requirements.txt").read_text().split() == extras["runtime"]


@pytest.mark.slow
def test_it_runs_without_the_bundle(zipapp, models, tmp_path):
    folder = series(tmp_path / "in")
    command = [sys.executable, "-I", str(zipapp), str(models.ct.path), str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check(png(tmp_path / "out" / "in_labels"), models.ct.truth(folder))
    wrong = subprocess.run([sys.executable, "-I", str(zipapp), "none.onnx", "in", "out"], cwd=tmp_path,
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert wrong.returncode == 1 and wrong.stderr.startswith("pyraseg: There is no model at none.onnx")


@pytest.mark.slow
def test_in_a_virtual_environment_of_its_own(zipapp, models, tmp_path):
    """Install what the requirements name, and nothing else; then what NIfTI and SEG need."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")

    def install(*what: str) -> None:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *what], check=True, capture_output=True)

    def run(model: Path, source: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [python, str(zipapp), str(model), str(source), str(output), *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    install("-r", str(zipapp.with_suffix(".requirements.txt")))
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout.lower()
    assert not any(name in listed for name in ("torch", "monai", "nibabel", "highdicom"))
    syntaxes = {"jpeg2000": JPEG2000Lossless, "rle": RLELossless, "jpegls": JPEGLSLossless}
    for name, syntax in syntaxes.items():
        write_series(tmp_path / "in" / name, gray(), spacing=(1.3, 0.9), slice_step=2.5, syntax=syntax,
                     SeriesInstanceUID=uid(name))  # fmt: skip
    done = run(models.ct.path, tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for name in syntaxes:
        check(png(tmp_path / "out" / f"{name}_labels"), models.ct.truth(tmp_path / "in" / name))
    (tmp_path / "photographs").mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (7, 5, 3), dtype=np.uint8)
    for suffix in ("png", "jpg"):
        path = tmp_path / "photographs" / f"{suffix}.{suffix}"
        Image.fromarray(pixels).resize((300, 200), Image.Resampling.BICUBIC).save(path)
        done = run(models.photograph.path, path, tmp_path / "out")
        assert done.returncode == 0, done.stderr
        check(png(tmp_path / "out" / f"{suffix}.png"), models.photograph.truth(path))
    folder = tmp_path / "in" / "rle"
    for form, package in (("nifti", "nibabel"), ("seg", "highdicom")):
        missing = run(models.ct.path, folder, tmp_path / "out", "--format", form)
        assert missing.returncode == 1 and f"pip install {package}" in missing.stderr
    install("nibabel", "highdicom")
    for form in ("nifti", "seg"):
        done = run(models.ct.path, folder, tmp_path / "out", "--format", form)
        assert done.returncode == 0, done.stderr
    found = np.asarray(nib.load(tmp_path / "out" / "rle.nii.gz").dataobj).transpose(2, 1, 0)
    check(found, models.ct.truth(folder))
    assert hd.seg.segread(tmp_path / "out" / "rle_seg.dcm").number_of_segments == 2

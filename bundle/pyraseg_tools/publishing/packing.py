# SPDX-License-Identifier: Apache-2.0
"""Make a package of one task: `pyraseg_TASK_vVERSION.zip`, with an image that shows nobody to try it on."""

import hashlib
import json
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from bundle.pyraseg.core import PROGRAMS, PyrasegError, file_digest, protect, replacing
from bundle.pyraseg.dicom import Purpose
from bundle.pyraseg.packaging import (
    BILL,
    CHANGELOG,
    METADATA,
    MODEL,
    SIGNATURE,
    SUMS,
    archive_bytes,
    check_form,
    run_golden,
    sign,
    sums_text,
    unpack,
)
from bundle.pyraseg.training import plain_file, read_model
from bundle.pyraseg.transforms import temperature_path
from bundle.pyraseg.workflow import config_text
from bundle.pyraseg_tools.datasets.phantom import phantom_case
from bundle.pyraseg_tools.publishing.bill import bill_of_materials
from bundle.pyraseg_tools.publishing.card import changelog_page, first_page
from bundle.pyraseg_tools.publishing.task import Task

PHOTOGRAPH, VOLUME = "input.png", "input.nii"
_SIZE = 192, 160  # columns, rows: not alike, so that a transposed result is seen
_PATIENT = 5  # of the phantom study: axial slices, a lesion
_SLICES = slice(8, 14)


def write_made_up(folder: Path, *, kind: str) -> None:
    """Write an image and an empty label beside it, `input.*` and `label.*`.

    Args:
        folder: exists.
        kind: of images, as the config says: "photograph", a drawn patch on skin, as PNG; "projection", the same in
            gray, as a radiograph is; "volume", a few slices of a phantom CT, as NIfTI in RAS.
    """
    if kind != "volume":
        skin = _skin()
        Image.fromarray(skin[..., 1] if kind == "projection" else skin).save(folder / PHOTOGRAPH)
        Image.fromarray(np.zeros(_SIZE[::-1], np.uint8)).save(folder / "label.png")
    else:
        case = phantom_case(2024, _PATIENT, size=96)
        voxels = np.ascontiguousarray(case.hu[_SLICES].transpose(2, 1, 0))
        affine = np.diag([-case.pixel_spacing[1], -case.pixel_spacing[0], float(case.slice_step[2]), 1.0])
        nib.save(nib.Nifti1Image(voxels, affine), folder / VOLUME)
        nib.save(nib.Nifti1Image(np.zeros(voxels.shape, np.uint8), affine), folder / "label.nii")


def _skin() -> np.ndarray:
    """Return a brown patch with a soft, uneven border on grained skin, (rows, columns, 3) uint8."""
    columns, rows = _SIZE
    y, x = np.indices((rows, columns))
    across, down = (x - 0.42 * columns) / (0.24 * columns), (y - 0.55 * rows) / (0.3 * rows)
    distance = np.hypot(across, down) * (1 + 0.12 * np.sin(3 * np.arctan2(down, across)))
    patch = 1 / (1 + np.exp((distance - 1) / 0.06))
    skin, brown = np.array([214, 168, 150]), np.array([98, 60, 48])
    grain = np.random.default_rng(0).normal(0, 6, (rows, columns, 1))
    return np.clip(skin + patch[..., None] * (brown - skin) + grain, 0, 255).astype(np.uint8)


def pack(root: Path, name: str, folder: Path, *, model: Path | None = None, key: Path | None = None) -> Path:
    """Write the package of a task; it appears whole or not at all.

    Args:
        root: of the repository.
        name: of the task.
        folder: where the zip goes; one of the same name there is replaced.
        model: weights to ship in place of those that the task's configs name.
        key: PEM file of the private key to sign with.

    Raises:
        PyrasegError: the task lacks something that a package must have (weights that fit, a card, a license of the
            data), git does not track a file of it, or the key cannot be used.
    """
    task = Task(root.resolve(), name)
    package = f"pyraseg_{name}"
    files = contents(task, package, model or task.model)
    files |= _golden(files)
    files[SUMS] = sums_text(files)
    if key is not None:
        files[SIGNATURE] = sign(files[SUMS], key)
    version = check_form(package, files)["version"]
    path = folder / f"{package}_v{version}.zip"
    protect([model or task.model])
    with replacing(path) as temporary:
        temporary.write_bytes(archive_bytes(package, files))
    return path


def contents(task: Task, package: str, model: Path) -> dict[str, bytes]:
    """Return the files of a package by path, but for its golden prediction, its sums and its signature."""
    root = task.root
    weights = _weights(model, task)
    digest, stored = hashlib.sha256(weights).hexdigest(), file_digest(model)
    metadata = task.config("metadata")
    stated = metadata["weights"].get(MODEL, stored)
    if stated != stored:
        raise PyrasegError(
            f"{model} has the SHA-256 {stored}, but the metadata of the task {task.name!r} describe other weights, "
            f"{stated}. Measure these weights, and put their SHA-256 and figures into the metadata and the model card."
        )
    metadata["weights"] = {MODEL: digest}
    files = {MODEL: weights}
    if temperature_path(model).is_file():
        files[temperature_path(Path(MODEL)).as_posix()] = temperature_path(model).read_bytes()
    sources = [*_code(root), *task.other_overlays(), root / "configs" / "logging.conf"]
    sources += [root / file for file in ("LICENSE", "pyproject.toml", "constraints.txt")]
    check_tracked(root, sources)
    files |= {path.relative_to(root).as_posix(): path.read_bytes() for path in sources}
    files |= {
        f"configs/{program}.json": config_text(task.config(program)).encode()
        for program in PROGRAMS
        if program != "metadata"
    }
    files[METADATA] = config_text(metadata).encode()
    about = {"name": package, "version": metadata["version"], "license": metadata["weights_license"]}
    bill = bill_of_materials(root, **about, model=MODEL, digest=digest)
    files[BILL] = (json.dumps(bill, indent=2) + "\n").encode()
    files["docs/data_license.txt"] = _document(task.license, "what the data and the weights may be used for")
    files["README.md"] = first_page(package, metadata, str(_purpose(task))).encode()
    files[CHANGELOG] = changelog_page(metadata).encode()
    files["docs/README.md"] = _document(task.card, "the model card")
    return files


def _purpose(task: Task) -> Purpose:
    values = task.settings.values
    return Purpose(**{name: values[name] for name in ("modality", "body_part", "plane", "pet_units")})


def check_tracked(root: Path, paths: Iterable[Path]) -> None:
    """Check that git tracks files which are about to be packaged, so that no scratch file goes to others.

    Where `root` is no working tree of git (an unpacked archive, a package), or git is not installed, nothing can tell,
    and every file may go.

    Raises:
        PyrasegError: git does not track one of them, or cannot list what it tracks.
    """
    if not (root / ".git").exists() or shutil.which("git") is None:
        return
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise PyrasegError(f"git cannot list the files that it tracks in {root}: {listed.stderr.strip()}")
    tracked = set(listed.stdout.split("\0"))
    stray = sorted({path.relative_to(root).as_posix() for path in paths} - tracked)
    if stray:
        raise PyrasegError(
            f"git does not track {', '.join(stray[:5])}{' and others' if stray[5:] else ''}, which would be packaged. "
            f"Add what belongs to it (git add), and move the rest out of {root}."
        )


def _code(root: Path) -> list[Path]:
    """Return the files of pyraseg that an installation has: modules, and what pyproject.toml names beside them."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    data = settings["package-data"]
    files = [path for pattern in ("*.py", *data["*"]) for path in (root / "bundle" / "pyraseg").rglob(pattern)]
    for package, patterns in data.items():
        if package.startswith("bundle.pyraseg."):
            files += [path for pattern in patterns for path in (root / package.replace(".", "/")).glob(pattern)]
    return files


def _weights(path: Path, task: Task) -> bytes:
    """Return a file of weights after a look into it: finite ones, trained with the settings of the task; plain ones."""
    _, trained = read_model(path, remedy="Train the task first, or give its weights: --model FILE.")
    task.settings.require(
        trained,
        f"The model {path}",
        remedy=f"A package has the settings of the configs of its task, here {task.name}. Give the weights of that "
        "task, name the task that the weights are of (--task), or write a task with the settings of their training "
        "(docs/tasks.md).",
    )
    return plain_file(path)


def _document(path: Path, what: str) -> bytes:
    if not path.is_file():
        raise PyrasegError(f"There is no {path}, which says {what}. A package goes to others: write it first.")
    return path.read_bytes()


def _golden(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of `golden/`: a made-up image, and what the package made of it in a folder elsewhere."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        unpack(files, folder)
        golden = folder / "golden"
        golden.mkdir()
        kind = json.loads(files["configs/inference.json"])["image_kind"]
        write_made_up(golden, kind=kind)
        fault = run_golden("record", folder)
        if fault:
            raise PyrasegError(f"The package would not work elsewhere: {fault}. Nothing was written.")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(golden.iterdir())}

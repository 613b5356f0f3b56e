# SPDX-License-Identifier: Apache-2.0
"""Write the whole phantom study: images, labels, data list and a manifest of hashes."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np

from bundle.pyraseg.core import PyrasegError, file_digest, in_turn, replacing, require_new, write_json
from bundle.pyraseg.labels import SegmentClass, write_segmentation
from bundle.pyraseg_tools.datasets.phantom.anatomy import LABELS
from bundle.pyraseg_tools.datasets.phantom.cases import PhantomCase, phantom_case
from bundle.pyraseg_tools.datasets.phantom.dicom_writer import write_series

logger = logging.getLogger(__name__)

VERSION = 1  # raise it whenever the same seed gives other bytes
CLASSES = (
    SegmentClass.organ("liver"),
    SegmentClass.lesion("liver"),
    SegmentClass.organ("spleen"),
    SegmentClass.organ("kidney"),
)


def write_phantom_study(
    folder: str | os.PathLike, *, seed: int = 2024, patients: int = 24, size: int = 144, workers: int = 2
) -> None:
    """Write a study of synthetic patients with labels for liver, liver lesion, spleen and kidney.

    The folder appears whole or not at all. It holds `case_NN/ct/*.dcm`, `case_NN/seg.dcm` or `case_NN/labels.nii.gz`,
    `datalist.json` (MONAI's Decathlon form, split by patient) and `manifest.json` (SHA-256 of every file).

    Args:
        folder: must not exist, or be empty.
        seed: the same seed gives the same bytes, whatever `workers` is.
        patients: at least 3; with all 24, every trait of `cases.PLANS` occurs.
        size: usual number of pixels in a row.
        workers: threads that make patients.

    Raises:
        PyrasegError: the folder holds something already, or there are too few patients to split.
    """
    folder = Path(folder)
    if patients < 3:
        raise PyrasegError(f"A study of {patients} patients cannot be split in three; ask for at least 3.")
    require_new(folder)
    with replacing(folder) as partial:
        partial.mkdir()
        with ThreadPoolExecutor(workers) as pool:
            items = list(pool.map(lambda index: _write_case(partial, seed, index, size), range(patients)))
        write_json(partial / "datalist.json", _data_list(items), indent=2)
        write_json(partial / "manifest.json", _manifest(partial, seed, patients, size), indent=2)


def _write_case(root: Path, seed: int, index: int, size: int) -> dict[str, str]:
    number = index + 1
    name = f"case_{number:02d}"
    case = phantom_case(seed, index, size=size)
    sources = write_series(root / name / "ct", case, seed=seed, number=number)
    if case.plan.label == "seg":
        label = f"{name}/seg.dcm"
        write_segmentation(root / label, case.labels, sources, CLASSES, deterministic_seed=seed)
    else:
        label = f"{name}/labels.nii.gz"
        _write_nifti(root / label, case)
    return {"image": f"{name}/ct", "label": label, "patient": f"phantom-{number:02d}"}


def _write_nifti(path: Path, case: PhantomCase) -> None:
    """Write the labels with an affine from voxel indices to RAS mm; a tilted stack makes it a shear, which is exact."""
    data = case.labels.transpose(2, 1, 0)
    affine = np.eye(4)
    spacing = case.pixel_spacing
    affine[:3] = np.column_stack(
        [spacing[1] * case.row_cosine, spacing[0] * case.column_cosine, case.slice_step, case.positions[0]]
    )
    if case.plan.label == "nifti-flipped":  # stored from the last row on, which turns the handedness round
        affine[:3, 3] += (data.shape[1] - 1) * affine[:3, 1]
        affine[:3, 1] *= -1
        data = data[:, ::-1]
    affine[:2] *= -1  # LPS to RAS
    image = nib.Nifti1Image(np.ascontiguousarray(data), affine)
    image.header.set_xyzt_units("mm")
    # The gzip header that nibabel writes carries neither a name nor a time, so the bytes repeat.
    nib.save(image, path)


def _data_list(items: list[dict[str, str]]) -> dict[str, object]:
    part = max(1, round(len(items) * 5 / 24))
    training = len(items) - 2 * part
    return {
        "name": "Pyraseg phantom",
        "description": "Synthetic abdominal CT; no patient is real.",
        "licence": "Apache-2.0",  # as the Decathlon spells it
        "modality": {"0": "CT"},
        "labels": {"0": "background", **{str(value): name for value, name in LABELS.items()}},
        "numTraining": training,
        "numTest": part,
        "training": items[:training],
        "validation": items[training : training + part],
        "test": items[training + part :],
    }


def _manifest(root: Path, seed: int, patients: int, size: int) -> dict[str, object]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        "generator": "bundle.pyraseg_tools.datasets.phantom",
        "version": VERSION,
        "seed": seed,
        "patients": patients,
        "size": size,
        "files": {path.relative_to(root).as_posix(): file_digest(path) for path in files},
    }


def phantom_study(folder: str | os.PathLike) -> str:
    """Return a folder, after the default study is written to it if it does not exist; several processes take turns."""
    place = Path(folder).expanduser().resolve()
    with in_turn():
        if not place.exists():
            logger.info("There is no data set yet: writing the phantom CT study to %s", place)
            try:
                write_phantom_study(place)
            except OSError:
                if not (place / "datalist.json").is_file():  # else another program wrote the same study in the meantime
                    raise
    return str(place)

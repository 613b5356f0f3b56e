# SPDX-License-Identifier: Apache-2.0
"""What other readers find in a folder, which share no code with ours: SimpleITK (GDCM), dcm2niix and highdicom."""

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dcm2niix
import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk

from tests.helpers.corpus.form import CLOSE, Form, Slice, Stack

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels (columns, rows, slices[, 3]) of another reader with their affine to LPS mm."""

    values: np.ndarray
    affine: np.ndarray

    def holds(self, one: Slice) -> bool:
        """Return whether a slice lies among the voxels, with the same values."""
        if one.plane is None:
            flat = np.swapaxes(one.values, 0, 1)
            return any(
                plane.shape == flat.shape and np.allclose(plane[::x, ::y], flat, rtol=1e-5, atol=1e-4)
                for plane in np.moveaxis(self.values, 2, 0)
                for x in (1, -1)
                for y in (1, -1)
            )
        points = one.points().reshape(-1, 3)
        indices = (np.linalg.inv(self.affine) @ np.c_[points, np.ones(len(points))].T)[:3].T
        nearest = np.rint(indices)
        off = (indices - nearest) * np.linalg.norm(self.affine[:3, :3], axis=0)
        inside = (nearest >= 0) & (nearest < self.values.shape[:3])
        if np.abs(off).max() > CLOSE or not inside.all():
            return False
        found = self.values[tuple(nearest.astype(int).T)].reshape(one.values.shape)
        alike = np.isclose(found, one.values, rtol=1e-5, atol=1e-4)
        return bool(alike.all() if one.padding is None else alike[~one.padding].all())


def by_simpleitk(folder: Path) -> list[Volume]:
    """Return every file that SimpleITK reads; each stands for itself."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(file))
        try:
            image = reader.Execute()
        except RuntimeError:
            continue
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        values = np.swapaxes(sitk.GetArrayFromImage(image), 0, 2)
        found.append(Volume(values, affine))
    return found


def by_dcm2niix(folder: Path) -> list[Volume]:
    """Return every volume that dcm2niix makes of a folder."""
    out = folder.with_name(f"{folder.name}_dcm2niix")
    out.mkdir()
    done = subprocess.run(
        [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "%s_%d", "-o", out, folder], capture_output=True, check=False
    )
    (out / "log.txt").write_bytes(done.stdout + done.stderr)
    found = []
    for file in sorted(out.glob("*.nii")):
        image = nib.load(file)
        values = np.asarray(image.dataobj)
        if values.dtype.names:  # RGB
            values = np.stack([values[name] for name in values.dtype.names], axis=-1)
            found.append(Volume(values if values.ndim == 4 else values[:, :, None], LPS @ image.affine))
            continue
        values = values.reshape(*values.shape, 1)[..., :1] if values.ndim == 2 else values
        values = values.reshape(*values.shape[:3], -1)
        found += [Volume(values[..., time], LPS @ image.affine) for time in range(values.shape[3])]
    return found


def by_highdicom(folder: Path) -> list[Volume]:
    """Return every frame of every object with functional groups, as highdicom rescales it and PS3.3 places it."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        dataset = pydicom.dcmread(file, force=True)
        if "PerFrameFunctionalGroupsSequence" not in dataset or "PixelData" not in dataset:  # it reads no float pixels
            continue
        image = hd.imread(file)
        shared = image.SharedFunctionalGroupsSequence[0]
        for number, own in enumerate(image.PerFrameFunctionalGroupsSequence, 1):
            place, turn, measures = (
                (own if group in own else shared)[group].value[0]
                for group in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
            )
            values = image.get_frame(
                number, apply_real_world_transform=False, apply_voi_transform=False, apply_presentation_lut=False
            )
            row, column = np.reshape(turn.ImageOrientationPatient, (2, 3)).astype(float)
            between_rows, between_columns = map(float, measures.PixelSpacing)
            affine = np.eye(4)
            steps = row * between_columns, column * between_rows, np.cross(row, column)
            affine[:3] = np.column_stack([*steps, np.array(place.ImagePositionPatient, float)])
            found.append(Volume(values.T[:, :, None], affine))
    return found


OTHERS: dict[str, Callable[[Path], list[Volume]]] = {
    "SimpleITK": by_simpleitk,
    "dcm2niix": by_dcm2niix,
    "highdicom": by_highdicom,
}


def agrees(volumes: Sequence[Volume], stacks: Sequence[Stack]) -> bool:
    """Return whether every slice lies in a volume, with its values in its place."""
    return all(any(volume.holds(one) for volume in volumes) for stack in stacks for one in stack)


def agreeing(form: Form) -> list[str]:
    """Return which other readers find every slice of a form with its values in its place."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        stacks = form.write(source)
        return [name for name, reader in OTHERS.items() if agrees(reader(source), stacks)]

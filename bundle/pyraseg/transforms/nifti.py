# SPDX-License-Identifier: Apache-2.0
"""Read NIfTI: one volume, where its voxels lie in mm, and in words what the header leaves open."""

import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from nibabel.spatialimages import HeaderDataError

from bundle.pyraseg.core import PyrasegError, tell
from bundle.pyraseg.dicom import apply_affine, unit_normal, voxel_sizes

#: Voxels by which two ways to say where a grid lies may differ at its corners.
GRID_TOLERANCE = 0.1
#: Share by which two voxel sizes may differ that are meant to be the same.
SIZE_TOLERANCE = 0.01
#: Pixels of a slice are no larger than this in mm; the step to the next slice may be, as between localizers.
LARGEST_PIXEL = 100.0
#: Length in mm and name of the units that a header may count in; files without a unit count in mm.
UNITS = {0: (1.0, "mm"), 1: (1000.0, "meters"), 2: (1.0, "mm"), 3: (0.001, "micrometers")}
#: The fields of a header that say where its voxels lie.
PLACE = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip


#: How a file begins that gzip has packed, the bytes of a header that tell its kind, and the kinds.
GZIP, HEADER, KINDS = b"\x1f\x8b", 540, (nib.Nifti1Image, nib.Nifti2Image)
#: Bytes of a compressed file that are looked at in turn.
PIECE = 1 << 16
#: Where a header says that its voxels follow in the same file.
LONE = {nib.Nifti1Image: slice(344, 346), nib.Nifti2Image: slice(4, 6)}


def read_nifti(path: Path, *, volume: int = 0) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the volume of a file, (W, H, D), and its metadata.

    A file of one plane, or of axes of length 1 behind the third, is a volume too. The metadata hold `affine` to RAS mm,
    whatever unit the header counts in; `other_affine` where qform and sform disagree, the one that was not taken;
    `oriented`, False where the header has neither; `step`, the distance of two whole numbers as the header scales
    them; and `place`, the fields of the header that say where it lies, for `place_of`.

    The sform is taken, as nibabel, MONAI, FSL and SPM take it, unless its voxel sizes contradict the header's and those
    of the qform do not: then it is the leftover of a program that did not know it. What was taken is told.

    Args:
        path: of the file.
        volume: which one of several, such as times, from 1; 0 where the file holds one.

    Raises:
        PyrasegError: the file is no NIfTI or damaged, or holds no voxels, several volumes, colors or complex numbers,
            or no place that can be.
    """
    with path.open("rb") as file:
        start = file.read(2)
    with BytesIO() if start == GZIP else path.open("rb") as stream:
        if start == GZIP:
            stream.writelines(inflate(path))
            stream.seek(0)
        start = stream.read(HEADER)
        found = [kind for kind in KINDS if kind.header_class.may_contain_header(start)]
        if not found or start[LONE[found[0]]] != b"n+":
            raise PyrasegError(
                f"{path} is no NIfTI, whatever it is called: its content does not begin as one file of NIfTI does. "
                "Convert it to NIfTI or leave it out."
            )
        stream.seek(0)
        _require_scale(found[0].header_class.from_fileobj(stream), path)
        stream.seek(0)
        image = found[0].from_stream(stream)
        dtype, shape = image.get_data_dtype(), one_volume(image.shape, path, volume=volume)
        if dtype.fields:
            raise PyrasegError(
                f"{path} holds colors (RGB), and a volume has one number in each voxel. Convert it to gray values."
            )
        if dtype.kind == "c":
            raise PyrasegError(
                f"{path} holds complex numbers, and a volume has one real number in each voxel. Save the magnitude, "
                "or the phase, as a file of its own."
            )
        where = np.unravel_index(volume - 1, image.shape[3:], order="F") if volume and image.shape[3:] else ()
        values = np.asarray(image.dataobj[(..., *where)] if where else image.dataobj).reshape(shape, order="F")
    meta = {**_placed(image, shape, path), "place": {name: np.array(image.header[name]) for name in PLACE}}
    if dtype.kind in "iu":
        meta["step"] = abs(float(getattr(image.dataobj, "slope", 1)))
    return values.astype(values.dtype.newbyteorder("="), copy=False), meta


def inflate(path: Path, start: int = 0) -> Iterator[bytes]:
    """Yield what gzip or zlib has packed in a file from a byte on, piece by piece.

    Whoever takes all pieces knows that they agree with their checksum. nibabel and ITK do not ask: they return the
    voxels of a damaged file as if they were right. What follows the last of the packed parts is left out.

    Raises:
        PyrasegError: it is damaged or cut.
    """
    with path.open("rb") as file:
        file.seek(start)
        packed = file.read(PIECE)
        while True:
            unpacking = zlib.decompressobj(wbits=47)  # of either
            while not unpacking.eof:
                if not packed:
                    raise PyrasegError(f"{path} is incomplete: its compressed content ends too early. Get it again.")
                try:
                    piece = unpacking.decompress(packed)
                except zlib.error as error:
                    raise PyrasegError(
                        f"{path} is damaged: its compressed content cannot be unpacked ({error}). Get it again."
                    ) from error
                yield piece
                packed = unpacking.unused_data or file.read(PIECE)
            packed = packed if len(packed) > 1 else packed + file.read(PIECE)
            if packed[:2] != GZIP:
                return


def _require_scale(header: nib.Nifti1Header, path: Path) -> None:
    """Refuse a header that scales its values by infinity; nibabel takes that for no scale at all."""
    if np.isinf(header["scl_slope"]):
        raise PyrasegError(
            f"{path} cannot be read as an image: its header scales the values by infinity (scl_slope). Correct it."
        )


def one_volume(shape: tuple[int, ...], path: Path, *, volume: int = 0) -> tuple[int, int, int]:
    """Return the shape (W, H, D) of a file's voxels without axes of length 1 behind the third.

    Raises:
        PyrasegError: there are several volumes and none is chosen, or none, or fewer than the number of the chosen one.
    """
    width, height, depth = (*shape[:3], 1, 1, 1)[:3]
    listed = " x ".join(map(str, shape))
    if 0 in shape or not shape:
        raise PyrasegError(f"{path} holds no voxels: its size is {listed or 'not stated'}. Replace it or leave it out.")
    count = int(np.prod(shape[3:], dtype=int))
    if volume > count:
        raise PyrasegError(f"{path} holds {count} volumes, and phase {volume} is asked for. Give another number.")
    if count > 1 and not volume:
        raise PyrasegError(
            f"{path} holds {count} volumes ({listed} voxels), such as times, contrasts or masks of classes, and only "
            f"one can be read. Times are phases: choose one with --phase 1 to --phase {count} (in a data list "
            '"phase": 1), or segment each with --phase all. Else save the one to use as a file of its own, as '
            "nibabel.load(...).slicer[..., 0] gives it; "
            "of masks of classes save each as a file, named after its class, into one folder, and give the folder."
        )
    return width, height, depth


def _placed(image: nib.Nifti1Pair, shape: tuple[int, int, int], path: Path) -> dict[str, Any]:
    """Return the metadata of where the voxels lie."""
    header = image.header
    sizes = np.array([*map(float, header.get_zooms()[:3]), 1, 1, 1])[:3]
    sizes[(sizes == 0) & (np.array(shape) == 1)] = 1  # the thickness of a plane
    code = int(header["xyzt_units"]) & 7
    scale, unit = UNITS.get(code, (1.0, f"an unknown unit (code {code})"))
    forms = {}
    for name, coded in (("sform", header.get_sform), ("qform", header.get_qform)):
        if header[f"{name}_code"] == 0:
            continue
        try:
            affine = _with_thickness(np.asarray(coded(), float), sizes, shape)
        except (ValueError, HeaderDataError):  # no rotation
            affine = np.full((4, 4), np.nan)
        if is_place(affine):
            forms[name] = affine
        else:
            tell(
                f"{path}: its {name} ({np.round(affine[:3], 3).tolist()}) does not give every voxel a place of its "
                "own, and was not used. Correct the header."
            )
    oriented = bool(forms)
    forms = forms or {"voxel sizes": np.diag([*sizes, 1])}
    axes = np.array(shape) > 1  # how thick a lone slice is says nothing
    fitting = [
        name
        for name, affine in forms.items()
        if any(np.allclose(found[axes], sizes[axes], rtol=SIZE_TOLERANCE) for found in _sizes_of(affine))
    ]
    taken = (fitting or list(forms))[0]
    if not is_place(forms[taken]):
        raise PyrasegError(
            f"The voxel sizes in the header of {path} are {listed_sizes(sizes)}, and each must be a number above 0. "
            "Correct its header (pixdim), or set its qform or sform."
        )
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij")).reshape(3, -1).T
    others = [affine for name, affine in forms.items() if name != taken]
    beside = [np.abs(apply_affine(np.linalg.inv(forms[taken]) @ one, corners) - corners).max() for one in others]
    meta: dict[str, Any] = {"affine": in_mm(forms[taken], scale), "oriented": oriented}
    if others and beside[0] > GRID_TOLERANCE:
        why = "as nibabel, FSL and SPM do"
        if taken == "qform":
            wrong = listed_sizes(voxel_sizes(forms["sform"]))
            why = f"for the sform has voxels of {wrong}, not {listed_sizes(sizes)} as the rest of the header"
        meta["other_affine"] = in_mm(others[0], scale)
        tell(
            f"{path}: its qform and sform disagree by up to {beside[0]:.1f} voxels. The {taken} was taken, {why}. If "
            "that is wrong, correct the header."
        )
    if not oriented:
        tell(
            f"{path}: its header does not say how it lies in the patient (qform and sform codes are 0). Its axes were "
            "taken to run to the right, to the front and to the head. If that is wrong, set its header."
        )
    if unit != "mm":
        now = listed_sizes(voxel_sizes(meta["affine"]))
        tell(
            f"{path}: its header counts in {unit}, so its voxels were taken to be {now} mm large. If that is wrong, "
            "correct the unit in its header (xyzt_units)."
        )
    require_pixels(meta["affine"], shape, path, unit=unit)
    return meta


def _sizes_of(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxel sizes of an affine, and those of a tilted stack as the distance of its planes."""
    steps = voxel_sizes(affine)
    across = abs(unit_normal(affine[:3, 0], affine[:3, 1]) @ affine[:3, 2])
    return steps, np.array([*steps[:2], across])


def is_place(affine: np.ndarray) -> bool:
    """Return whether an affine gives every voxel a place of its own."""
    return bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > 0


def require_pixels(affine: np.ndarray, shape: tuple[int, int, int], path: Path, *, unit: str) -> None:
    """Refuse voxels (affine to mm) that are too large for a patient along more than one axis: then a unit is wrong.

    On a model's grid such a volume would have thousands of times as many voxels as memory holds.
    """
    sizes = voxel_sizes(affine)
    if np.count_nonzero(sizes[np.array(shape) > 1] > LARGEST_PIXEL) > 1:
        raise PyrasegError(
            f"{path} has voxels of {listed_sizes(sizes)} mm (its header counts in {unit}). Pixels of more than "
            f"{LARGEST_PIXEL:g} mm are in no image of a patient: correct the unit or the voxel sizes in its header."
        )


def in_mm(affine: np.ndarray, scale: float) -> np.ndarray:
    """Return an affine to mm, where `scale` is the length of its unit."""
    return np.diag([scale, scale, scale, 1]) @ affine


def _with_thickness(affine: np.ndarray, sizes: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Give the one slice of an affine that has no step to the next one the direction of its normal."""
    if shape[2] == 1 and not affine[:3, 2].any() and affine[:3, :2].any(axis=0).all():
        affine = affine.copy()
        affine[:3, 2] = unit_normal(affine[:3, 0], affine[:3, 1]) * sizes[2]
    return affine


def listed_sizes(sizes: np.ndarray) -> str:
    """Return sizes for a message, such as 0.8 x 0.8 x 3."""
    return " x ".join(f"{size:g}" for size in np.round(sizes, 4))


def place_of(grid: MetaTensor) -> Mapping[str, np.ndarray] | None:
    """Return the fields of the header that say where a NIfTI lies, for a file that lies on its voxels.

    A file with the same fields lies on it in every program, whichever of qform, sform and units that program heeds.
    None where the grid ([C, ]W, H, D) is another than that of the file, or is not of NIfTI.
    """
    place, affine = grid.meta.get("place"), grid.meta.get("original_affine")
    same = place is not None and np.allclose(np.asarray(affine, float), np.asarray(grid.affine, float))
    if not same or tuple(grid.shape[-3:]) != tuple(map(int, grid.meta["spatial_shape"])):
        return None
    return {name: np.asarray(value) for name, value in place.items()}

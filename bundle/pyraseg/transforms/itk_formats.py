# SPDX-License-Identifier: Apache-2.0
"""Read NRRD and MetaImage: one volume, where its voxels lie in mm, and the segments that 3D Slicer names."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from bundle.pyraseg.core import PyrasegError, pixel_files, read_itk_header, tell
from bundle.pyraseg.dicom import LPS_TO_RAS, voxel_sizes
from bundle.pyraseg.transforms.nifti import in_mm, inflate, is_place, listed_sizes, one_volume, require_pixels

#: Length in mm of the units of length that headers name.
UNITS = {
    "m": 1000.0, "meter": 1000.0, "meters": 1000.0, "cm": 10.0, "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0,
    "um": 0.001, "µm": 0.001, "micron": 0.001, "microns": 0.001, "micrometer": 0.001, "micrometers": 0.001,
}  # fmt: skip


def read_itk(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the volume of a file, (W, H, D), and its metadata.

    A file of one plane is a volume too; one of 3 bytes a voxel is a color picture, (W, H, 1, 3). The metadata hold
    `affine` to RAS mm, whatever unit the header counts in; `oriented`, False where the axes of its space are not the
    patient's; and for a segmentation of 3D Slicer `segments`, what its header says of them by their keys. Its layers,
    in which segments overlap, are a last axis: (W, H, D, layers).

    Raises:
        PyrasegError: the file holds no voxels, several volumes or numbers a voxel, or its pixels are in another file
            that is missing.
    """
    import itk

    header, end = read_itk_header(path)
    segments = {key: text for key, text in header.items() if re.match(r"Segment\d+_", key)}
    _require_pixels(path, header, end)
    # not whatever its content is: of formats that nobody named some let a file show others of this machine
    name = "NRRD" if path.suffix.lower() in (".nrrd", ".nhdr") else "MetaImage"
    form = (itk.NrrdImageIO if name == "NRRD" else itk.MetaImageIO).New()
    if not form.CanReadFile(str(path)):
        raise PyrasegError(
            f"{path} is named as {name}, but its content is no {name}. Save it as {name} or leave it out."
        )
    form.SetFileName(str(path))
    form.ReadImageInformation()
    shape = one_volume(tuple(form.GetDimensions(axis) for axis in range(form.GetNumberOfDimensions())), path)
    parts, kind = form.GetNumberOfComponents(), form.GetComponentTypeAsString(form.GetComponentType())
    pixel = {"unsigned_char": itk.UC, "short": itk.SS, "unsigned_short": itk.US, "float": itk.F}.get(kind, itk.D)
    color = parts == 3 and kind == "unsigned_char" and shape[2] == 1 and not segments
    if parts > 1 and not (color or segments):
        raise PyrasegError(
            f"{path} holds {parts} numbers in each voxel, such as colors, vectors, contrasts or masks of classes, and "
            "only one can be read. Save the one to use as a file of its own; of masks of classes save each as a file, "
            "named after its class, into one folder, and give the folder."
        )
    reader = itk.ImageFileReader[(itk.Image if parts == 1 else itk.VectorImage)[pixel, 3]].New(
        FileName=str(path), ImageIO=form
    )
    reader.Update()
    image = reader.GetOutput()
    array = itk.array_from_image(image)
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(image.GetDirection()) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    if not is_place(affine):
        raise PyrasegError(
            f"The voxel sizes in the header of {path} are {listed_sizes(voxel_sizes(affine))}, and its axes do not "
            "give every voxel a place of its own. Correct sizes and directions in its header."
        )
    (scale, unit), oriented = _scale(path, header), _is_oriented(path, header)
    meta: dict[str, Any] = {"affine": in_mm(LPS_TO_RAS @ affine, scale), "oriented": oriented}
    require_pixels(meta["affine"], shape, path, unit=unit)
    if segments:
        meta["segments"] = segments
    return np.moveaxis(array, (0, 1, 2), (2, 1, 0)), meta


def _require_pixels(path: Path, header: dict[str, str], end: int) -> None:
    """Refuse a header whose voxels are in other files that are not there, and compressed voxels that are damaged."""
    elsewhere = pixel_files(path)
    if missing := [file for file in elsewhere if not file.is_file()]:
        named = missing[0].relative_to(path.parent) if missing[0].is_relative_to(path.parent) else missing[0]
        raise PyrasegError(f"{path} is a header, and the file of its voxels, {named}, is not beside it. Put it there.")
    packed = header.get("encoding", "").lower() in ("gzip", "gz") or header.get("compresseddata", "").lower() == "true"
    skips = {"line skip", "byte skip", "lineskip", "byteskip"} & set(header)
    if packed and not skips and len(elsewhere) < 2:
        for _ in inflate(elsewhere[0]) if elsewhere else inflate(path, end):
            pass


def _scale(path: Path, header: dict[str, str]) -> tuple[float, str]:
    """Return the length in mm of the unit that a header counts in, and its name; without one it is mm."""
    stated = re.findall(r'"([^"]*)"', header.get("space units", "")) or [header.get("distanceunits", "")]
    units = {unit.strip().lower() for unit in stated} - {"", "?", "mm"}
    if not units:
        return 1.0, "mm"
    if len(units) > 1 or not units <= set(UNITS):
        tell(
            f"{path}: its header counts in {', '.join(sorted(units))}, which was taken for mm. If that is wrong, "
            "correct it."
        )
        return 1.0, "mm"
    (unit,) = units
    tell(f"{path}: its header counts in {unit}, and was turned into mm. If that is wrong, correct the header.")
    return UNITS[unit], unit


def _is_oriented(path: Path, header: dict[str, str]) -> bool:
    """Return whether the axes that a header counts along are the patient's. MetaImage's always are."""
    if "elementdatafile" in header or re.match(
        r"(r|l|right|left)-?(a|p|anterior|posterior)-?(s|superior)", header.get("space", "").lower()
    ):
        return True
    tell(
        f"{path}: its header does not say how it lies in the patient (space: {header.get('space', 'none')}). Its axes "
        "were taken to run to the left, to the back and to the head. If that is wrong, set its header."
    )
    return False

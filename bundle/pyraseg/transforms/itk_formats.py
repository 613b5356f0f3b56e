# SPDX-License-Identifier: Apache-2.0
"""Read NRRD and MetaImage: one volume, where its voxels lie in mm, and the segments that 3D Slicer names."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from bundle.pyraseg.core import PyrasegError, tell
from bundle.pyraseg.dicom import LPS_TO_RAS, voxel_sizes
from bundle.pyraseg.transforms.nifti import in_mm, inflate, is_place, listed_sizes, one_volume, require_pixels

#: Length in mm of the units of length that headers name.
UNITS = {
    "m": 1000.0, "meter": 1000.0, "meters": 1000.0, "cm": 10.0, "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0,
    "um": 0.001, "µm": 0.001, "micron": 0.001, "microns": 0.001, "micrometer": 0.001, "micrometers": 0.001,
}  # fmt: skip
#: Headers end here at the latest; pixels follow.
LONGEST_HEADER = 1 << 20


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

    header, end = read_header(path)
    segments = {key: text for key, text in header.items() if re.match(r"Segment\d+_", key)}
    _require_pixels(path, header, end)
    form = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if form is None:
        kind = "NRRD" if path.name.lower().endswith((".nrrd", ".nhdr")) else "MetaImage"
        raise PyrasegError(
            f"{path} is called as a file of {kind}, and its content is none. Save it as {kind}, or leave it out."
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
    reader = itk.ImageFileReader[(itk.Image if parts == 1 else itk.VectorImage)[pixel, 3]].New(FileName=str(path))
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


def read_header(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a header, and where it ends.

    Names of fields are lower-case; of a NRRD its `key:=value` pairs are fields too, with their keys as they are.
    """
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    nrrd = start.startswith(b"NRRD")
    end = re.search(rb"\r?\n\r?\n" if nrrd else rb"(?i)elementdatafile[^\n]*\n?", start)
    length = end.end() if end else len(start)
    text = start[:length].decode(errors="replace")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if nrrd and ":=" in line:
            key, _, value = line.partition(":=")
            fields[key.strip()] = value.strip().replace("\\n", "\n").replace("\\\\", "\\")
        elif not line.startswith("#"):
            key, _, value = line.partition(":" if nrrd else "=")
            fields[re.sub(r"\s+", " ", key.strip().lower())] = value.strip()
    return fields, length


def pixel_file(path: Path) -> Path | None:
    """Return the one file in which a header of NRRD or MetaImage says its voxels are; None where they follow it."""
    named = _named_pixels(read_header(path)[0])
    return path.parent / named if _is_one_file(named) else None


def _named_pixels(header: dict[str, str]) -> str:
    return header.get("elementdatafile", header.get("data file", header.get("datafile", "LOCAL")))


def _is_one_file(named: str) -> bool:
    return re.match(r"local$|list\b|.*%", named, re.IGNORECASE) is None


def _require_pixels(path: Path, header: dict[str, str], end: int) -> None:
    """Refuse a header whose voxels are in another file that is not there, and compressed voxels that are damaged."""
    named = _named_pixels(header)
    elsewhere = _is_one_file(named)
    if elsewhere and not (path.parent / named).is_file():
        raise PyrasegError(f"{path} is a header, and the file of its voxels, {named}, is not beside it. Put it there.")
    packed = header.get("encoding", "").lower() in ("gzip", "gz") or header.get("compresseddata", "").lower() == "true"
    skips = {"line skip", "byte skip", "lineskip", "byteskip"} & set(header)
    if packed and not skips and (elsewhere or named.upper() == "LOCAL"):
        for _ in inflate(path.parent / named) if elsewhere else inflate(path, end):
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

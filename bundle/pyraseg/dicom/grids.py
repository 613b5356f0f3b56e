# SPDX-License-Identifier: Apache-2.0
"""Images whose tiles are the slices of a volume, as if they were frames: mosaics of Siemens, grids of United Imaging.

How many tiles are filled and where they lie stands in private attributes. The ones of Siemens are known from nibabel's
documentation ("Siemens format DICOM with CSA header"), those of United Imaging from dcm2niix's (UIH/README.md).
"""

import math
from io import BytesIO

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.sequence import Sequence
from pydicom.uid import MRImageStorage

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.csa import read_csa
from bundle.pyraseg.dicom.headers import file_of, frame_count, parse, private_value, read_numbers
from bundle.pyraseg.dicom.pixels import decode_frames

#: What ImageType says of them.
MOSAIC, GRID = "MOSAIC", "VFRAME"
_WHAT = {MOSAIC: "a Siemens mosaic", GRID: "a grid of United Imaging"}
_PRIVATE = {MOSAIC: "Siemens' CSA header, (0029,1010)", GRID: "(0065,1050) and (0065,1051)"}


def grid_kind(dataset: Dataset) -> str:
    """Return what of `MOSAIC` and `GRID` an image is, or nothing; a header that is unpacked is neither any more."""
    if dataset.get("Modality") not in ("MR", "", None) or dataset.get("PerFrameFunctionalGroupsSequence"):
        return ""
    return _stated(dataset) if frame_count(dataset) == 1 else ""


def is_unpacked(header: Dataset) -> bool:
    """Return whether the frames of a header are tiles of an image that has no frames."""
    groups = header.get("PerFrameFunctionalGroupsSequence")
    return bool(groups) and header.get("SOPClassUID") == MRImageStorage and bool(_stated(header))


def _stated(dataset: Dataset) -> str:
    image_type = dataset.get("ImageType") or ()
    values = {str(value).strip().upper() for value in ([image_type] if isinstance(image_type, str) else image_type)}
    return next((kind for kind in (MOSAIC, GRID) if kind in values), "")


def unpack(header: Dataset, complete: Dataset) -> None:
    """Give the header of a mosaic or a grid the form that it would have with a frame for each tile.

    `Rows`, `Columns` and `NumberOfFrames` become those of tiles, and functional groups say where each lies.

    Args:
        header: changed in place.
        complete: all that stands in the file before its pixels; may be the same object.

    Raises:
        PyrasegError: the private attributes that are needed are absent or damaged, or contradict the others.
    """
    kind, where = grid_kind(header), file_of(complete)
    try:
        rows, columns, positions = (_mosaic if kind == MOSAIC else _grid)(complete, where)
    except PyrasegError as error:
        raise PyrasegError(
            f"{where} is {_WHAT[kind]}, the slices of a volume as tiles of one image, and it cannot be told where they "
            f"lie: {error} That stands in private attributes ({_PRIVATE[kind]}), which archives and anonymizers may "
            "drop. Get the images with them, or from the scanner as single slices or as an enhanced object."
        ) from error
    shared = Dataset()
    shared.PlaneOrientationSequence = [_taken(complete, "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_taken(complete, "PixelSpacing", "SliceThickness")]
    frames = []
    for position in positions.tolist():
        plane = Dataset()
        plane.ImagePositionPatient = [float(f"{part:.9g}") for part in position]
        frame = Dataset()
        frame.PlanePositionSequence = [plane]
        frames.append(frame)
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], frames
    header.Rows, header.Columns, header.NumberOfFrames = rows, columns, len(frames)


def stored_values(dataset: Dataset, header: Dataset) -> np.ndarray:
    """Return the stored values of all frames of an image, see `decode_frames`, those of a grid as its header has them.

    Args:
        dataset: with pixels.
        header: of the same file, unpacked where it is a grid.
    """
    decoded = decode_frames(dataset)
    if not grid_kind(dataset):
        return decoded
    rows, columns = int(header.Rows), int(header.Columns)
    down, across = decoded.shape[1] // rows, decoded.shape[2] // columns
    tiles = decoded.reshape(down, rows, across, columns, *decoded.shape[3:]).swapaxes(1, 2)
    return tiles.reshape(down * across, rows, columns, *decoded.shape[3:])[: frame_count(header)]


def _taken(dataset: Dataset, *keywords: str) -> Dataset:
    taken = Dataset()
    for keyword in keywords:
        if dataset.get(keyword) not in (None, ""):
            taken[keyword] = dataset[keyword]
    return taken


def _axes(dataset: Dataset, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unit steps (2, 3) along a row and along a column, the spacing between columns and between rows, and
    the position of the whole image.

    Raises:
        PyrasegError: one of them is absent or malformed.
    """
    orientation = read_numbers(dataset, "ImageOrientationPatient", 6, where)
    spacing = read_numbers(dataset, "PixelSpacing", 2, where)
    position = read_numbers(dataset, "ImagePositionPatient", 3, where)
    if orientation is None or spacing is None or position is None:
        raise PyrasegError("its position, orientation or pixel spacing is absent.")
    return np.reshape(orientation, (2, 3)), np.array(spacing[::-1]), np.array(position)


def _tile_size(dataset: Dataset, down: int, across: int) -> tuple[int, int]:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows % down or columns % across:
        raise PyrasegError(f"its {rows} x {columns} pixels are not {down} x {across} tiles of one size.")
    return rows // down, columns // across


def _mosaic(dataset: Dataset, where: str) -> tuple[int, int, np.ndarray]:
    """Return rows and columns of a tile of Siemens, and where each slice lies, (N, 3) LPS mm.

    There are as many tiles across as down. The position of the mosaic is that of an image of its size whose center is
    the center of the first slice. Slices follow each other along the normal that the CSA header names.
    """
    data = private_value(dataset, 0x0029, "SIEMENS CSA HEADER", 0x10)
    if not isinstance(data, bytes):
        raise PyrasegError("its CSA header is absent.")
    csa = read_csa(data)
    count = int(_csa_numbers(csa, "NumberOfImagesInMosaic", 1)[0])
    side = math.ceil(math.sqrt(count))
    rows, columns = _tile_size(dataset, side, side)
    axes, steps, corner = _axes(dataset, where)
    normal = np.cross(*axes)
    direction = _csa_numbers(csa, "SliceNormalVector", 3) @ normal
    if abs(abs(direction) - 1) > 1e-2:
        raise PyrasegError("the slice normal of its CSA header does not stand on its rows and columns.")
    if any(text.strip() not in ("", "0", "1") for text in csa.get("ProtocolSliceNumber", [])):
        raise PyrasegError("its slices are numbered backwards, and it is not known in which direction they then lie.")
    between = read_numbers(dataset, "SpacingBetweenSlices", 1, where)
    if count > 1 and (between is None or between[0] <= 0):
        raise PyrasegError("its SpacingBetweenSlices is absent.")
    surplus = np.array([int(dataset.Columns) - columns, int(dataset.Rows) - rows]) / 2
    first = corner + (surplus * steps) @ axes
    along = np.sign(direction) * normal * (between[0] if between else 0.0)
    return rows, columns, first + np.arange(count)[:, None] * along


def _csa_numbers(csa: dict[str, list[str]], name: str, count: int) -> np.ndarray:
    """Return the numbers of a tag of a CSA header, (count,)."""
    texts = csa.get(name, [])
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all() or (count == 1 and not 1 <= values[0] <= 4096):
        raise PyrasegError(f"{name} in its CSA header is {', '.join(texts) or 'absent'}.")
    return values


def _grid(dataset: Dataset, where: str) -> tuple[int, int, np.ndarray]:
    """Return rows and columns of a tile of United Imaging, and where each slice lies, (N, 3) LPS mm."""
    items = private_value(dataset, 0x0065, "Image Private Header", 0x51)
    if isinstance(items, bytes):  # an archive that does not know the attribute keeps it as bytes, VR UN (PS3.5 6.2.2)
        items = _items(items)
    if not isinstance(items, Sequence) or not items:
        raise PyrasegError("its sequence of slices (0065,1051) is absent, or cannot be read.")
    positions = [read_numbers(item, "ImagePositionPatient", 3, where) for item in items]
    stated = private_value(dataset, 0x0065, "Image Private Header", 0x50) or len(items)
    stated = stated.decode("latin-1").strip() if isinstance(stated, bytes) else str(stated)
    if None in positions or stated != str(len(items)):
        raise PyrasegError(f"of its {stated} slices {len(items) - positions.count(None)} have a position.")
    _axes(dataset, where)
    across = math.ceil(math.sqrt(len(items)))
    return *_tile_size(dataset, math.ceil(len(items) / across), across), np.array(positions)


def _items(data: bytes) -> Sequence | None:
    try:
        sequence = read_sequence(BytesIO(data), True, True, len(data), "iso8859")
        for item in sequence:
            parse(item)
        return sequence
    except Exception:  # Damaged bytes make pydicom raise nearly every type there is.
        return None

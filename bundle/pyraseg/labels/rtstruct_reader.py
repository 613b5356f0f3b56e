# SPDX-License-Identifier: Apache-2.0
"""Read RT Structure Sets (PS3.3 A.19) and fill their contours on the slices of an image."""

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import Geometry
from bundle.pyraseg.labels.class_table import Canvas, ClassTable, Region, read_codes
from bundle.pyraseg.labels.contours import fill_contours
from bundle.pyraseg.labels.references import ImageGrid, ImageUids, references_of_regions, require_reference

LOGGER = logging.getLogger(__name__)

EXCLUSIVE = ("CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")  # the standard's term, and what programs also write
CLOSED = ("CLOSED_PLANAR", *EXCLUSIVE)
EDGE = 0.01  # pixels by which a corner may be rounded beyond the edge of the image
OPEN = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")


@dataclass(frozen=True, eq=False)
class Contour:
    """Hold one closed contour: its corners (n, 3) in LPS mm, and whether it is combined by exclusive or."""

    points: np.ndarray
    exclusive: bool


@dataclass(frozen=True, eq=False)
class Roi:
    """Hold one region of interest: what it is called, its closed contours, and the images that it was drawn on."""

    region: Region
    contours: tuple[Contour, ...]
    references: ImageUids


@dataclass(frozen=True, eq=False)
class StructureSet:
    """Hold the ROIs of an RTSTRUCT by their numbers."""

    path: Path
    rois: dict[int, Roi]

    @property
    def regions(self) -> dict[int, Region]:
        """Return what each ROI stands for."""
        return {number: roi.region for number, roi in self.rois.items()}


def read_structure_set(dataset: Dataset, path: Path) -> StructureSet:
    """Read the ROIs that have a closed contour.

    Points, open lines and empty ROIs are left out and logged, with a warning where there is nothing else.

    Raises:
        PyrasegError: a contour is not made of points, of an unknown type, or of an ROI that is not named.
    """
    references = references_of_regions(dataset)
    observations = {int(o.ReferencedROINumber): o for o in dataset.get("RTROIObservationsSequence") or []}
    contours: dict[int, list[Contour]] = defaultdict(list)
    for item in dataset.get("ROIContourSequence") or []:
        for number, contour in enumerate(item.get("ContourSequence") or [], 1):
            kind = str(contour.get("ContourGeometricType") or "")
            where = f"Contour {number} of ROI {item.ReferencedROINumber} in {path}"
            if kind not in CLOSED + OPEN:
                raise PyrasegError(f"{where} is of the unknown type {kind!r}, not {', '.join(CLOSED + OPEN)}.")
            if kind in CLOSED:
                points = _points(contour, where)
                contours[int(item.ReferencedROINumber)].append(Contour(points, kind in EXCLUSIVE))
    rois, left_out = {}, []
    for item in dataset.get("StructureSetROISequence") or []:
        number, name = int(item.ROINumber), str(item.get("ROIName") or "")
        if number not in contours:
            left_out.append(name)
            continue
        codes = read_codes(observations.get(number, Dataset()), "RTROIIdentificationCodeSequence")
        rois[number] = Roi(Region(name, codes), tuple(contours[number]), references[number])
    nameless = sorted(set(contours) - set(rois))
    if nameless:
        raise PyrasegError(f"{path} has contours of the ROIs {nameless}, which it does not name. Export it again.")
    if left_out:
        LOGGER.log(logging.INFO if rois else logging.WARNING, "%s: no closed contour in the ROIs %s", path, left_out)
    return StructureSet(path, rois)


def _points(contour: Dataset, where: str) -> np.ndarray:
    values = np.array([float(value) for value in contour.get("ContourData") or []])
    if len(values) % 3 or len(values) < 3 or not np.isfinite(values).all():
        raise PyrasegError(f"{where} has {len(values)} coordinates, not three for each point. Export it again.")
    return values.reshape(-1, 3)


def structure_set_to_labels(
    structures: StructureSet, grid: ImageGrid, table: ClassTable, *, drawn_on: str = "series"
) -> np.ndarray:
    """Fill the contours on image slices and return class indices (N, rows, columns) uint8.

    A contour belongs to the slice in whose plane it lies. Those between slices or beyond them are counted in a warning,
    and so are contours of one ROI that cross, and points outside of the image, where the contours are cut off.

    Raises:
        PyrasegError: the image has no patient position, the contours were drawn on other images or in another
            plane, none of them lies on a slice or all lie outside of the image, an ROI means no class, or ROIs overlap
            whose classes may not.
    """
    where = f"The RTSTRUCT {structures.path}"
    if grid.geometry is None:
        raise PyrasegError(f"{where} needs an image whose slices have a patient position.")
    classes = table.indices(structures.regions, where, "ROIs")
    canvas = Canvas(table, grid.shape, where)
    drawn = {number: roi for number, roi in structures.rois.items() if classes[number]}
    for references in dict.fromkeys(roi.references for roi in drawn.values()):
        require_reference(where, references, grid.uids, drawn_on=drawn_on)
    off_slices, crossing, beyond, missing = [], [], [], 0
    for number, roi in drawn.items():
        by_slice, off = _by_slice(roi, grid.geometry, f"ROI {roi.region.name!r} of {structures.path}")
        off_slices += off
        for index, contours in by_slice.items():
            corners = [grid.geometry.pixels_at(c.points, np.full(len(c.points), index)) for c in contours]
            outside = [_outside(one, grid.shape[1:]) for one in corners]
            beyond += [np.linalg.norm(one * grid.geometry.pixel_spacing, axis=1) for one in outside if one.any()]
            missing += sum(bool((one > 0).all(axis=0).any() or (one < 0).all(axis=0).any()) for one in outside)
            mask, odd = fill_contours(corners, grid.shape[1:], exclusive=[c.exclusive for c in contours])
            rows, columns = np.nonzero(mask)
            canvas.paint(classes[number], (np.full(len(rows), index), rows, columns))
            crossing += [roi.region.name] if odd else []
    total = sum(len(roi.contours) for roi in drawn.values())
    if total and len(off_slices) == total:
        raise PyrasegError(f"{where}: none of its {total} contours lies on a slice of the image. Give its own series.")
    if total and len(off_slices) + missing == total:
        raise PyrasegError(
            f"{where}: all of its {total} contours lie outside of the image, by up to "
            f"{max(far.max() for far in beyond):.1f} mm. Give its own series."
        )
    if beyond:
        LOGGER.warning(
            "%s: %d points of %d contours lie outside of the image, by up to %.1f mm; the contours are cut off there",
            where, sum(int((far > 0).sum()) for far in beyond), len(beyond), max(far.max() for far in beyond),
        )  # fmt: skip
    if off_slices:
        LOGGER.warning(
            "%s: %d of %d contours lie on no slice of the image, but %.1f to %.1f mm from one, and are left out",
            where, len(off_slices), total, min(off_slices), max(off_slices),
        )  # fmt: skip
    if crossing:
        names = ", ".join(sorted(set(crossing)))
        LOGGER.warning(
            "%s: contours of one ROI repeat or cross on %d slices (%s); the area inside two crossing contours is "
            "left out",
            where, len(crossing), names,
        )  # fmt: skip
    return canvas.finished()


def _outside(corners: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return by how many rows and columns each corner (n, 2) lies before (-) or behind the image, up to its edge."""
    before, behind = -0.5 - EDGE, np.array(shape) - 0.5 + EDGE
    return corners - np.clip(corners, before, behind)


def _by_slice(roi: Roi, geometry: Geometry, name: str) -> tuple[dict[int, list[Contour]], list[float]]:
    """Return the contours in each slice, and for each of the others the mm between it and the nearest slice."""
    by_slice: dict[int, list[Contour]] = defaultdict(list)
    off_slices = []
    for contour in roi.contours:
        slices, off = geometry.nearest_slices(contour.points)
        heights = contour.points @ geometry.normal
        if np.ptp(heights) > 2 * geometry.slice_tolerance:
            raise PyrasegError(
                f"{name} has contours across the image's slices (over {np.ptp(heights):.1f} mm), so it was drawn on "
                "images of another orientation. Give their series."
            )
        if np.abs(off).max() > geometry.slice_tolerance:
            off_slices.append(float(np.abs(off).max()))
        else:
            by_slice[int(slices[0])].append(contour)
    return by_slice, off_slices

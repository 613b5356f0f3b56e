# SPDX-License-Identifier: Apache-2.0
"""What is written about an input, with labels that show every wrong turn, as other programs read it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import torch
from matplotlib.path import Path as Outline
from monai.data import MetaTensor
from monai.transforms import LoadImage
from skimage.measure import grid_points_in_poly

from bundle.pyraseg.dicom import read_series
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.transforms.reader import MedicalImageReader
from tests.helpers.corpus.form import CLOSE, Plane, Slice, Stack
from tests.helpers.corpus.readers import stack_of
from tests.helpers.dcmqi import dcmqi_points

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def letters(shape: Sequence[int]) -> np.ndarray:
    """Return labels (slices, rows, columns): an angle of class 1, a block of class 3 at the border; 2 is missing."""
    labels = np.zeros(shape, np.uint8)
    rows, columns = shape[1:]
    for k in range(shape[0]):
        labels[k, 1 : 2 + rows // 2, 1:3] = 1
        labels[k, 1, 1 : 2 + columns // 2 - k % 3] = 1
        labels[k, rows - 2 - k % 2 :, columns - 3 :] = 3
    return labels


def predicted(source: object, out: Path, **options: object) -> tuple[Prediction, Stack]:
    """Read an input as inference does, put letters on it, and return also the slices that they are on."""
    stack = stack_of(read_series(source, **options))
    load = LoadImage(reader=MedicalImageReader(**options), ensure_channel_first=True, image_only=True, expanduser=False)
    image = load(source)
    labels = letters((len(stack), *stack[0].values.shape[:2]))
    found = MetaTensor(torch.from_numpy(np.ascontiguousarray(labels.T))[None], meta=image.meta)
    if found.ndim > image.ndim:  # a picture
        found = found[..., 0]
    return Prediction("case", out / "case", found, image), stack


def points(stack: Stack, labels: np.ndarray, value: int) -> np.ndarray:
    """Return the LPS mm of the pixels that have a label, (n, 3)."""
    return np.concatenate([one.points()[plane == value] for one, plane in zip(stack, labels, strict=True)])


def are_same(some: np.ndarray, others: np.ndarray) -> bool:
    """Return whether two sets of points (n, 3) are the same."""
    if len(some) != len(others):
        return False
    distances = np.linalg.norm(some[:, None] - others[None], axis=-1)
    return not len(some) or max(distances.min(0).max(), distances.min(1).max()) < CLOSE


def by_highdicom(path: Path, prediction: Prediction) -> np.ndarray | None:
    """Return the labels of a SEG by what its frames refer to, (slices, rows, columns), as highdicom reads them.

    None where slices are tiles of one image, which nothing refers to.
    """
    segmentation = hd.seg.segread(path)
    uids, frames = list(prediction.original.meta["sop_instance_uids"]), prediction.source_frames
    options = {"combine_segments": True, "ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
    if len(set(uids)) == len(uids):
        return segmentation.get_pixels_by_source_instance(uids, **options)
    if "NumberOfFrames" not in pydicom.dcmread(prediction.source_files[0], stop_before_pixels=True):
        return None
    pairs = zip(uids, frames, strict=True)
    return np.concatenate([segmentation.get_pixels_by_source_frame(uid, [frame], **options) for uid, frame in pairs])


def by_places(path: Path) -> dict[int, np.ndarray]:
    """Return the points of each segment of a SEG by the places of its frames alone (PS3.3 C.7.6.16.2)."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    found: dict[int, list[np.ndarray]] = {}
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for own, mask in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        place, turn, measures, segment = (
            (own if group in own else shared)[group].value[0]
            for group in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
                          "SegmentIdentificationSequence")
        )  # fmt: skip
        cosines = tuple(map(float, turn.ImageOrientationPatient))
        plane = Plane(tuple(map(float, place.ImagePositionPatient)), cosines, tuple(map(float, measures.PixelSpacing)))
        found.setdefault(segment.ReferencedSegmentNumber, []).append(Slice(mask, plane).points()[mask > 0])
    return {number: np.concatenate(parts) for number, parts in found.items()}


def by_dcmqi(path: Path) -> dict[int, np.ndarray]:
    """Return the points of each segment of a SEG as dcmqi reads them."""
    return dcmqi_points(path)


def in_nifti(path: Path, stack: Stack) -> np.ndarray:
    """Return the labels of a NIfTI at the places of slices, (slices, rows, columns), by its affine alone."""
    image = nib.load(path)
    inverse = np.linalg.inv(LPS @ image.affine)
    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
    values, found = np.asarray(image.dataobj), []
    for one in stack:
        at = one.points()
        indices = at @ inverse[:3, :3].T + inverse[:3, 3]
        nearest = np.rint(indices).astype(int)
        assert np.abs((indices - nearest) * sizes).max() < CLOSE
        found.append(values[tuple(np.moveaxis(nearest, -1, 0))])
    return np.stack(found)


def by_filling(path: Path, prediction: Prediction, stack: Stack) -> dict[str, np.ndarray]:
    """Return the labels of a structure set, (slices, rows, columns), filled by skimage and by matplotlib.

    A contour belongs to the slice in whose plane it lies, which must be of the image that it names.
    """
    dataset = pydicom.dcmread(path)
    names = list(zip(prediction.original.meta["sop_instance_uids"], prediction.source_frames, strict=True))
    shape = stack[0].values.shape[:2]
    pixels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 2)
    found = {name: np.zeros((len(stack), *shape), np.uint8) for name in ("skimage", "matplotlib")}
    for roi in dataset.ROIContourSequence:
        for contour in roi.get("ContourSequence", []):
            corners = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            number = next(k for k, one in enumerate(stack) if np.abs(heights(corners, one.plane)).max() < CLOSE)
            image = contour.ContourImageSequence[0]
            assert image.ReferencedSOPInstanceUID == names[number][0]
            assert image.get("ReferencedFrameNumber", names[number][1]) == names[number][1]
            plane = stack[number].plane
            polygon = np.stack([(corners - plane.position) @ step / (step @ step) for step in plane.steps], axis=1)
            for name, inside in (
                ("skimage", grid_points_in_poly(shape, polygon)),
                ("matplotlib", Outline(np.r_[polygon, polygon[:1]]).contains_points(pixels).reshape(shape)),
            ):
                found[name][number][inside] = roi.ReferencedROINumber
    return found


def heights(corners: np.ndarray, plane: Plane) -> np.ndarray:
    """Return how far points (n, 3) lie from a plane, (n,) mm."""
    return (corners - plane.position) @ np.cross(*np.reshape(plane.orientation, (2, 3)))


def complaints(path: Path) -> list[str]:
    """Return the errors that dciodvfy reports."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert "Segmentation" in done.stderr or "RTStructureSet" in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]

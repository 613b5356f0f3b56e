# SPDX-License-Identifier: Apache-2.0
"""Segmentations of other images, on other grids and with damage are refused, with the reason."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.labels.reading import open_label, read_dicom_label
from bundle.pyraseg.labels.references import ImageGrid
from tests.helpers.dicom_sources import grid_of, letter_f, make_sources
from tests.helpers.seg_files import TABLE, change, write


def test_a_segmentation_of_other_images_is_refused(tmp_path: Path) -> None:
    sources = make_sources("axial")
    path = write(tmp_path / "seg.dcm", letter_f(), sources)
    other = {"series_uid": generate_uid(), "sop_instance_uids": tuple(generate_uid() for _ in sources)}
    with pytest.raises(PyrasegError, match=rf"drawn on the series {sources[0].SeriesInstanceUID}, not on its image"):
        read_dicom_label(path, grid_of(sources, **other), TABLE)
    found = read_dicom_label(path, grid_of(sources, **other), TABLE, drawn_on="frame_of_reference")
    assert np.array_equal(found, letter_f())
    for drawn_on in ("series", "frame_of_reference"):
        with pytest.raises(PyrasegError, match=r"lies in the frame of reference .* so it was drawn on other images"):
            grid = grid_of(sources, **other, frame_of_reference_uid=generate_uid())
            read_dicom_label(path, grid, TABLE, drawn_on=drawn_on)
    change(path, lambda ds: delattr(ds, "ReferencedSeriesSequence"))  # its frames still name what they come from
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), letter_f())
    with pytest.raises(PyrasegError, match="was drawn on instances of another series, not on its image"):
        read_dicom_label(path, grid_of(sources, **other), TABLE)
    nameless = grid_of(sources, series_uid="", frame_of_reference_uid="", sop_instance_uids=("",) * 4)
    assert np.array_equal(read_dicom_label(path, nameless, TABLE), letter_f())  # no UID to compare: by place alone
    with pytest.raises(PyrasegError, match="drawn_on is 'study'"):
        read_dicom_label(path, nameless, TABLE, drawn_on="study")


def test_frames_without_a_place_go_to_their_source(tmp_path: Path) -> None:
    """Radiographs have no frame of reference: PS3.3 A.51 then leaves the plane position out."""
    sources, mask = make_sources("axial"), letter_f()
    path = write(tmp_path / "seg.dcm", mask, sources)

    def drop_places(ds: Dataset) -> None:
        for group in ds.PerFrameFunctionalGroupsSequence:
            del group.PlanePositionSequence
        del ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        del ds.FrameOfReferenceUID

    change(path, drop_places)
    flat = {"geometry": None, "frame_of_reference_uid": ""}
    assert np.array_equal(read_dicom_label(path, grid_of(sources, **flat), TABLE), mask)
    turned = grid_of(sources[::-1], **flat)
    assert np.array_equal(read_dicom_label(path, turned, TABLE), mask[::-1])
    with pytest.raises(PyrasegError, match="was derived from an image that is not the label's"):
        read_dicom_label(path, grid_of(sources[:2], **flat), TABLE)
    with pytest.raises(PyrasegError, match="has 14 x 11 pixels, the image that it was derived from 7 x 11"):
        read_dicom_label(path, grid_of(sources, **flat, shape=(4, 7, 11)), TABLE)


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (lambda p, r, c, s, n: (np.add(p, [0, 0, 10]), r, c, s, n), "from the nearest image slice"),
        (lambda p, r, c, s, n: (np.add(p, [0, 0, 1]), r, c, s, n), "up to 1.00 mm from the nearest image slice"),
        (lambda p, r, c, s, n: (np.add(p, [0.4, 0, 0]), r, c, s, n), "another grid"),
        (lambda p, r, c, s, n: (p, r, c, (1.6, 0.8), n), "another grid"),
        (lambda p, r, c, s, n: (p, r, c, (0.75, 0.4), (4, 28, 22)), "another grid"),  # every second pixel would fit
        (lambda p, r, c, s, n: (p, r, c, s, (4, 14, 8)), "another grid"),
        (lambda p, r, c, s, n: (p, c, r, s, n), "another grid"),
    ],
    ids=["far", "between", "shifted", "spacing", "finer", "size", "transposed"],
)
def test_frames_that_do_not_fit_are_refused(tmp_path: Path, move: object, message: str) -> None:
    sources = make_sources("axial")
    path = write(tmp_path / "seg.dcm", letter_f(), sources)
    place, shape = grid_of(sources).geometry, letter_f().shape
    *moved, size = move(place.positions, place.row_cosine, place.column_cosine, place.pixel_spacing, shape)
    with pytest.raises(PyrasegError, match=message):
        read_dicom_label(path, ImageGrid(size, Geometry(*moved)), TABLE)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda ds: setattr(ds, "SegmentationType", "SURFACE"), "of type SURFACE, not BINARY"),
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[:20]), "cannot be decoded"),
        (lambda ds: delattr(ds, "NumberOfFrames"), "describes 8 frames and has 1"),
        (lambda ds: delattr(ds, "SegmentSequence"), "cannot be read as a DICOM label"),
        (lambda ds: ds.SegmentSequence.pop(0), "belongs to segment 1, which is not described"),
        (lambda ds: delattr(ds.PerFrameFunctionalGroupsSequence[2], "SegmentIdentificationSequence"),
         "Frame 3 of .* does not name its segment"),
        (lambda ds: delattr(ds.PerFrameFunctionalGroupsSequence[0], "PlanePositionSequence"), None),
    ],
)  # fmt: skip
def test_damage_gives_a_message(tmp_path: Path, damage: object, message: str | None) -> None:
    sources = make_sources("axial")
    path = change(write(tmp_path / "seg.dcm", letter_f(), sources), damage)
    if message is None:  # its source tells where the frame belongs
        assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), letter_f())
        return
    with pytest.raises(PyrasegError, match=message):
        read_dicom_label(path, grid_of(sources), TABLE)


def test_other_files_are_refused(tmp_path: Path, real_data: Path) -> None:
    with pytest.raises(PyrasegError, match=r"01\.dcm is no segmentation \(modality CT\)"):
        open_label(real_data / "ct_liver_dicom_seg" / "ct-3slice" / "01.dcm")
    (tmp_path / "text").write_text("no label at all")
    for path, message in ((tmp_path / "text", "is no DICOM file"), (tmp_path, "cannot be read")):
        with pytest.raises(PyrasegError, match=message):
            open_label(path)

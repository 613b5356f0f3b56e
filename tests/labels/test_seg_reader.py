# SPDX-License-Identifier: Apache-2.0
"""Segmentations of every type come back as they were: from highdicom, from dcmqi, and as dcmqi reads them."""

from pathlib import Path

import highdicom as hd
import itk
import numpy as np
import pydicom
import pytest
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.sr.coding import Code
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.grid import ImageGrid
from bundle.pyraseg.labels.reading import open_label, read_dicom_label
from tests.helpers.dcmqi import dcmqi_points, same_points, voxel_points
from tests.helpers.dicom_sources import REGULAR, SHAPE, STACKS, grid_of, letter_f, make_sources

NAMES = ["liver", "lesion", "spleen"]
TABLE = ClassTable(["background", *NAMES])
CODES = [Code("10200004", "SCT", "Liver"), Code("52988006", "SCT", "Lesion"), Code("78961009", "SCT", "Spleen")]
CATEGORY = Code("91723000", "SCT", "Anatomical Structure")


def describe(number: int, label: str, code: Code) -> SegmentDescription:
    return SegmentDescription(number, label, CATEGORY, code, algorithm_type="MANUAL")


def write(
    path: Path,
    pixels: np.ndarray | hd.Volume,
    sources: list[Dataset],
    kind: str = "BINARY",
    *,
    names: list[str] = NAMES,
    codes: list[Code] = CODES,
    **options: object,
) -> Path:
    """Write a segmentation by highdicom alone."""
    Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[describe(n, *pair) for n, pair in enumerate(zip(names, codes, strict=True), 1)],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Maker",
        manufacturer_model_name="Model",
        software_versions="1",
        device_serial_number="1",
        **options,
    ).save_as(path)
    return path


def change(path: Path, action: object) -> Path:
    """Change the data set of a file."""
    dataset = pydicom.dcmread(path)
    action(dataset)
    dataset.save_as(path)
    return path


# --- types and orientations ---


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_what_highdicom_wrote_comes_back(tmp_path: Path, kind: str, stack: str) -> None:
    sources, mask = make_sources(stack), letter_f()
    pixels = np.stack([mask == value for value in (1, 2, 3)], axis=3).astype(float) if kind == "FRACTIONAL" else mask
    path = write(tmp_path / "seg.dcm", pixels, sources, kind)
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)
    for order in ([3, 2, 1, 0], [2, 0, 3, 1]):  # matched by place, not by index
        shuffled = [sources[k] for k in order]
        assert np.array_equal(read_dicom_label(path, grid_of(shuffled), TABLE), mask[order])


@pytest.mark.parametrize("stack", REGULAR)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_dcmqi_reads_what_we_read(tmp_path: Path, kind: str, stack: str) -> None:
    sources, mask = make_sources(stack), letter_f()
    path = write(tmp_path / "seg.dcm", mask, sources, kind)
    ours = read_dicom_label(path, grid_of(sources), TABLE)
    theirs = dcmqi_points(path)
    assert set(theirs) == {1, 3}
    assert all(same_points(points, voxel_points(grid_of(sources), ours == v)) for v, points in theirs.items())


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 0, 2), (1, 2, 0), (0, 2, 1)], ids=str)
@pytest.mark.parametrize("flip", [(), (0,), (1, 2)], ids=str)
@pytest.mark.parametrize("stack", ["axial", "oblique"])
def test_frames_may_cut_the_volume_along_other_axes(tmp_path: Path, stack: str, axes: tuple, flip: tuple) -> None:
    sources, mask = make_sources(stack), letter_f()
    row, column, step = (np.array(v, float) for v in STACKS[stack])
    affine = np.eye(4)
    affine[:3] = np.column_stack([step, column * 1.5, row * 0.8, sources[0].ImagePositionPatient])
    volume = hd.Volume(mask, affine, "PATIENT", frame_of_reference_uid=sources[0].FrameOfReferenceUID)
    volume = volume.permute_spatial_axes(axes)
    volume = volume.flip_spatial(flip) if flip else volume
    path = write(tmp_path / "seg.dcm", volume, sources)
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL"])
def test_compressed_frames(tmp_path: Path, kind: str, syntax: str) -> None:
    sources, mask = make_sources("axial"), letter_f()
    pixels = np.stack([mask == value for value in (1, 2, 3)], axis=3).astype(float) if kind == "FRACTIONAL" else mask
    path = write(tmp_path / "seg.dcm", pixels, sources, kind, transfer_syntax_uid=syntax)
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)


def test_only_some_slices_out_of_order_with_a_gap_in_the_classes(tmp_path: Path) -> None:
    sources, mask = make_sources("reversed"), letter_f()
    mask[[0, 2]] = 0
    path = write(tmp_path / "seg.dcm", mask, sources)
    dataset = pydicom.dcmread(path)
    count = int(dataset.NumberOfFrames)
    assert count == 4  # two segments on two slices, of twelve
    order = [2, 0, 3, 1]
    dataset.PixelData = pack_bits(dataset.pixel_array[order].ravel())
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[k] for k in order]
    dataset.SegmentSequence = dataset.SegmentSequence[::-1]
    dataset.save_as(path)
    assert np.array_equal(read_dicom_label(path, grid_of(sources), TABLE), mask)
    turned = ClassTable(["background", "spleen", "lesion", "liver"])
    assert np.array_equal(read_dicom_label(path, grid_of(sources), turned), np.array([0, 3, 2, 1])[mask])


def test_a_frame_may_be_smaller_or_larger_than_the_image(tmp_path: Path) -> None:
    sources, mask = make_sources("oblique"), letter_f()
    path = write(tmp_path / "seg.dcm", mask, sources)
    grid = grid_of(sources)
    right, down = 0.8 * grid.row_cosine, 1.5 * grid.column_cosine
    wider = grid_of(sources, shape=(4, 14, 20), positions=grid.positions - 2 * right)
    assert np.array_equal(read_dicom_label(path, wider, TABLE)[:, :, 2:13], mask)
    narrower = grid_of(sources, shape=(4, 12, 8), positions=grid.positions + down + right)
    assert np.array_equal(read_dicom_label(path, narrower, TABLE), mask[:, 1:13, 1:9])


def test_an_empty_segmentation_is_background(tmp_path: Path) -> None:
    sources = make_sources("axial")
    path = write(tmp_path / "seg.dcm", np.zeros(SHAPE, np.uint8), sources, omit_empty_frames=False)
    assert not read_dicom_label(path, grid_of(sources), TABLE).any()


# --- fractions ---


@pytest.mark.parametrize("meaning", ["PROBABILITY", "OCCUPANCY"])
@pytest.mark.parametrize("most", [255, 100])
def test_a_fraction_counts_from_the_threshold_on(tmp_path: Path, meaning: str, most: int) -> None:
    sources = make_sources("coronal")
    fractions = np.linspace(0, 1, np.prod(SHAPE)).reshape(SHAPE)[..., None]
    path = write(tmp_path / "seg.dcm", fractions, sources, "FRACTIONAL", names=NAMES[:1], codes=CODES[:1],
                 fractional_type=meaning, max_fractional_value=most)  # fmt: skip
    stored = np.rint(fractions[..., 0] * most) / most
    for threshold in (0.25, 0.5, 0.9, 1):
        label = read_dicom_label(path, grid_of(sources), TABLE, fraction=threshold)
        assert np.array_equal(label, stored >= threshold)


def test_a_fraction_needs_its_maximum(tmp_path: Path) -> None:
    sources = make_sources("axial")
    fractions = (letter_f() == 1)[..., None].astype(float)
    path = write(tmp_path / "seg.dcm", fractions, sources, "FRACTIONAL", names=NAMES[:1], codes=CODES[:1])
    change(path, lambda ds: setattr(ds, "MaximumFractionalValue", 100))
    with pytest.raises(PyrasegError, match="holds the value 255, but Maximum Fractional Value is 100"):
        read_dicom_label(path, grid_of(sources), TABLE)
    change(path, lambda ds: delattr(ds, "MaximumFractionalValue"))
    with pytest.raises(PyrasegError, match="no Maximum Fractional Value"):
        read_dicom_label(path, grid_of(sources), TABLE)


# --- overlap ---


def overlapping() -> np.ndarray:
    """Return liver, a lesion in it and beside it, and a spleen apart: (slices, rows, columns, 3)."""
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    pixels[:, 2:8, 2:8, 0] = 1
    pixels[:, 4:9, 3:5, 1] = 1
    pixels[:, 12:, 9:, 2] = 1
    return pixels


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_overlapping_segments_need_an_order(tmp_path: Path, kind: str) -> None:
    sources, pixels = make_sources("axial"), overlapping()
    path = write(tmp_path / "seg.dcm", pixels.astype(float if kind == "FRACTIONAL" else np.uint8), sources, kind)
    with pytest.raises(PyrasegError, match=r"'liver' and 'lesion' in 32 pixels overlap, .* Say in overlap_order"):
        read_dicom_label(path, grid_of(sources), TABLE)
    liver, lesion, spleen = (pixels[..., k].astype(bool) for k in range(3))
    for order in (["liver", "lesion"], ["lesion", "liver"], ["spleen", "lesion", "liver"]):
        table = ClassTable(TABLE.class_names, overlap_order=order)
        label = read_dicom_label(path, grid_of(sources), table)
        last = order[-1]
        assert np.array_equal(label == 1, liver & ~lesion if last == "lesion" else liver)
        assert np.array_equal(label == 2, lesion & ~liver if last == "liver" else lesion)
        assert np.array_equal(label == 3, spleen)
    merged = ClassTable(["background", "liver", "spleen"], {"liver": ["lesion"]})  # one class cannot overlap itself
    label = read_dicom_label(path, grid_of(sources), merged)
    assert np.array_equal(label, np.where(liver | lesion, 1, np.where(spleen, 2, 0)))


# --- references ---


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
    flat = {"positions": None, "row_cosine": None, "column_cosine": None, "frame_of_reference_uid": ""}
    assert np.array_equal(read_dicom_label(path, grid_of(sources, **flat), TABLE), mask)
    turned = grid_of(sources[::-1], **flat)
    assert np.array_equal(read_dicom_label(path, turned, TABLE), mask[::-1])
    with pytest.raises(PyrasegError, match="was derived from an image that is not the label's"):
        read_dicom_label(path, grid_of(sources[:2], **flat), TABLE)
    with pytest.raises(PyrasegError, match="has 14 x 11 pixels, the image that it was derived from 7 x 11"):
        read_dicom_label(path, grid_of(sources, **flat, shape=(4, 7, 11)), TABLE)


# --- refusals ---


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
    grid = grid_of(sources)
    moved = move(grid.positions, grid.row_cosine, grid.column_cosine, grid.pixel_spacing, grid.shape)
    with pytest.raises(PyrasegError, match=message):
        read_dicom_label(path, ImageGrid(moved[4], *moved[:4]), TABLE)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda ds: setattr(ds, "SegmentationType", "SURFACE"), "of type SURFACE, not BINARY"),
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[:20]), "cannot be decoded"),
        (lambda ds: delattr(ds, "NumberOfFrames"), "describes 8 frames and has 1"),
        (lambda ds: delattr(ds, "SegmentSequence"), "cannot be read as a DICOM label"),
        (lambda ds: ds.SegmentSequence.pop(0), "belongs to segment 1, which is not described"),
        (lambda ds: delattr(ds.PerFrameFunctionalGroupsSequence[2], "SegmentIdentificationSequence"),
         "Frame 3 of .* does not tell its segment"),
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


# --- files of others ---


def real_grid(real_data: Path, folder: str) -> ImageGrid:
    return ImageGrid.of(read_series(real_data / "ct_liver_dicom_seg" / folder))


def nrrd(real_data: Path, name: str) -> np.ndarray:
    """Return an array as ITK sees it: slices from -z up, rows, columns."""
    return np.asarray(itk.imread(real_data / "ct_liver_dicom_seg" / name))


def test_reads_what_dcmqi_wrote(real_data: Path) -> None:
    path = real_data / "ct_liver_dicom_seg" / "liver.dcm"
    label = read_dicom_label(path, real_grid(real_data, "ct-3slice"), ClassTable(["background", "liver"]))
    assert np.array_equal(label, nrrd(real_data, "liver_seg.nrrd") != 0)
    coded = ClassTable(["nothing", "Leber"], {"Leber": [["SCT", "10200004"]]})  # the file has SRT T-62000
    assert np.array_equal(read_dicom_label(path, real_grid(real_data, "ct-3slice"), coded), label)


@pytest.mark.parametrize("name", ["sparse-labelmap-noppv", "sparse-labelmap-ppv5"])
def test_reads_label_maps_that_dcmqi_wrote(real_data: Path, name: str) -> None:
    """Two of three slices are stored; in one file, padding of value 5 surrounds the liver."""
    path = real_data / "ct_liver_dicom_seg" / f"{name}.dcm"
    grid = real_grid(real_data, "24x38x3/image")
    label = read_dicom_label(path, grid, ClassTable(["nothing", "liver"]))
    stored = pydicom.dcmread(path).pixel_array == 1
    assert np.array_equal(label[[0, 2]] != 0, stored) and not label[1].any() and stored.any()
    theirs = nrrd(real_data, f"{name.replace('-', '_')}_seg.nrrd")
    assert np.array_equal(theirs[[0, -1]] == 1, stored)


@pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])  # 23 columns: frames begin within a byte
def test_frames_begin_within_a_byte(real_data: Path, size: str) -> None:
    path = real_data / "ct_liver_dicom_seg" / size / "seg" / "label.seg"
    table = ClassTable(["background", "liver"])
    label = read_dicom_label(path, real_grid(real_data, f"{size}/image"), table)
    assert np.array_equal(label, nrrd(real_data, f"{size}/nrrd/label.nrrd") != 0)
    grid = real_grid(real_data, f"{size}/multiframe")  # the same slices as an enhanced object, another series
    with pytest.raises(PyrasegError, match="was drawn on the series"):
        read_dicom_label(path, grid, table)
    assert np.array_equal(read_dicom_label(path, grid, table, drawn_on="frame_of_reference"), label)


def test_overlaps_that_dcmqi_wrote(real_data: Path) -> None:
    path = real_data / "ct_liver_dicom_seg" / "partial_overlaps.dcm"
    colors = ["GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE"]
    grid = real_grid(real_data, "ct-3slice")
    with pytest.raises(PyrasegError, match=r"'GREEN' and '\w+' in \d+ pixels.* overlap"):
        read_dicom_label(path, grid, ClassTable(["background", *colors]))
    masks = np.zeros((5, *grid.shape), bool)
    for frame in open_label(path).frames():
        k = int(np.abs(grid.positions[:, 2] - frame.plane.position[2]).argmin())
        masks[frame.segment - 1, k] |= frame.mask
    order = colors[::-1]
    label = read_dicom_label(path, grid, ClassTable(["background", *colors], overlap_order=order))
    expected = np.zeros(grid.shape, np.uint8)
    for name in order:
        expected[masks[colors.index(name)]] = 1 + colors.index(name)
    assert np.array_equal(label, expected)


@pytest.mark.parametrize("name", ["liver_j2k", "liver_nonbyte_aligned", "liver_nonbyte_aligned_j2k"])
def test_frames_are_decoded_however_they_are_stored(real_data: Path, name: str) -> None:
    folder = real_data / "dicom_robustness"
    pairs = zip(open_label(folder / "liver.dcm").frames(), open_label(folder / f"{name}.dcm").frames(), strict=True)
    for plain, other in pairs:
        rows, columns = other.mask.shape  # those that do not end on a byte have one column less
        assert np.array_equal(plain.mask[:rows, :columns], other.mask)


@pytest.mark.parametrize("name", ["liver_deflate", "liver_nonbyte_aligned_rle"])
def test_what_cannot_be_decoded_gives_a_message(real_data: Path, name: str) -> None:
    with pytest.raises(PyrasegError, match=rf"{name}\.dcm cannot be decoded \(transfer syntax"):
        list(open_label(real_data / "dicom_robustness" / f"{name}.dcm").frames())

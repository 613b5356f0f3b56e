# SPDX-License-Identifier: Apache-2.0
"""Images whose tiles are slices become those slices, where they lie, or are refused by name."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.nicom import csareader
from pydicom.uid import ImplicitVRLittleEndian

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.csa import read_csa
from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg.dicom.series import SeriesStream, read_series
from bundle.pyraseg.dicom.source import read_sources
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.dicom_files import AXIAL, CORONAL, SAGITTAL, refusal, save, uid, write_enhanced, write_series
from tests.helpers.mosaics import MOSAIC, csa_header, make_mosaic, make_uih_grid, write_mosaic

REAL = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"
OBLIQUE = (1.0, 0.0, 0.0, 0.0, 0.8, -0.6)


def stack(count, rows=6, columns=8):
    return np.random.default_rng(count).integers(0, 2000, (count, rows, columns), dtype=np.uint16)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("count", "orientation", "step"), [(4, AXIAL, 3.0), (5, OBLIQUE, 3.5), (9, CORONAL, -4.0), (2, SAGITTAL, -2.0)]
)
def test_a_mosaic_becomes_its_slices(tmp_path, version, count, orientation, step):
    slices = stack(count)
    origin, normal = np.array([-20.0, 10.0, 5.0]), np.cross(orientation[:3], orientation[3:])
    write_mosaic(tmp_path / "a", slices, origin=origin, orientation=orientation, step=step, version=version)
    image = read_series(tmp_path)
    order = slice(None, None, 1 if step > 0 else -1)
    assert np.array_equal(image.pixels, slices[order])
    where = origin + np.arange(count)[:, None] * step * normal
    assert np.allclose(image.geometry.positions, where[order], atol=1e-6)
    assert np.array_equal([slices[number - 1] for number in image.frame_numbers], image.pixels)


@pytest.mark.parametrize("name", ["siemens_dwi_0", "siemens_dwi_1000"])
def test_real_mosaics_lie_where_their_protocol_put_the_slices(tmp_path, name):
    (tmp_path / "a").write_bytes(gzip.decompress((REAL / f"{name}.dcm.gz").read_bytes()))
    image = read_series(tmp_path)
    assert image.pixels.shape == (48, 128, 128)
    raw = pydicom.dcmread(tmp_path / "a")
    assert np.array_equal(image.pixels[8], raw.pixel_array[128:256, 128:256])
    protocol = csareader.read(raw[0x29, 0x1020].value)["tags"]["MrPhoenixProtocol"]["items"][0]
    stated = dict(line.replace("\t", "").split("=", 1) for line in protocol.split("\n") if "asSlice" in line)
    stated = {key.strip(): float(value) for key, value in stated.items() if "sPosition" in key}
    axes = [[stated.get(f"sSliceArray.asSlice[{k}].sPosition.d{axis}", 0) for axis in ("Sag", "Cor", "Tra")]
            for k in range(48)]  # fmt: skip
    centers = image.geometry.points(np.stack([np.full(48, 64), np.full(48, 64), np.arange(48)], axis=1))
    assert np.allclose(centers, axes, atol=0.01)


@pytest.mark.parametrize("name", ["csa2_b0.bin", "csa2_b1000.bin", "csa_str_valid.bin"])
def test_csa_headers_read_as_by_nibabel(name):
    data = (REAL / name).read_bytes()
    expected = csareader.read(data)["tags"]
    found = read_csa(data)
    assert found.keys() == expected.keys()
    for tag, texts in found.items():
        values = [value for value in expected[tag]["items"] if value != ""]
        assert len(texts) == len(values)
        assert all(
            float(text) == value if isinstance(value, int | float) else text == value.strip()
            for text, value in zip(texts, values, strict=True)
        ), tag


@pytest.mark.parametrize("end", range(0, 250, 13))
def test_a_csa_header_that_is_cut_short_is_refused(end):
    with pytest.raises(PyrasegError, match="damaged"):
        read_csa(csa_header({"NumberOfImagesInMosaic": [4], "SliceNormalVector": [0, 0, 1]})[:end])


def test_a_grid_of_united_imaging_becomes_its_slices(tmp_path):
    slices = stack(7)
    positions = np.array([[1, 2, 10 - 4.5 * k] for k in range(7)])
    for name, syntax in (("explicit", None), ("implicit", ImplicitVRLittleEndian)):
        save(make_uih_grid(slices, positions), tmp_path / name / "a", **({"syntax": syntax} if syntax else {}))
        image = read_series(tmp_path / name)
        assert np.array_equal(image.pixels, slices[::-1])
        assert np.allclose(image.geometry.positions, positions[::-1])


def without_privates(dataset):
    dataset.remove_private_tags()
    return dataset


def with_tags(**attributes):
    dataset = make_mosaic(stack(4))
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


REFUSED = {
    "behind an archive": (lambda: without_privates(make_mosaic(stack(4))), "CSA header is absent"),
    "no count": (lambda: make_mosaic(stack(4), csa={"NumberOfImagesInMosaic": []}), "NumberOfImagesInMosaic"),
    "a count of 0": (lambda: make_mosaic(stack(4), csa={"NumberOfImagesInMosaic": [0]}), "NumberOfImagesInMosaic"),
    "a count of other tiles": (lambda: make_mosaic(stack(4), csa={"NumberOfImagesInMosaic": [30]}), "6 x 6 tiles"),
    "no normal": (lambda: make_mosaic(stack(4), csa={"SliceNormalVector": []}), "SliceNormalVector"),
    "a normal in the slice": (lambda: make_mosaic(stack(4), csa={"SliceNormalVector": [1, 0, 0]}), "slice normal"),
    "numbered backwards": (lambda: make_mosaic(stack(4), csa={"ProtocolSliceNumber": [3]}), "backwards"),
    "no spacing": (lambda: with_tags(SpacingBetweenSlices=None), "SpacingBetweenSlices"),
    "no position": (lambda: with_tags(ImagePositionPatient=None), "position"),
    "a grid behind an archive": (
        lambda: without_privates(make_uih_grid(stack(4), np.eye(4, 3))), "(0065,1051) is absent"),
    "a grid with a slice too few": (lambda: make_uih_grid(stack(4), np.eye(3)), "of its 4 slices 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name_where_it_cannot_be_unpacked(tmp_path, case):
    make, what = REFUSED[case]
    dataset = make()
    if case == "a grid with a slice too few":
        dataset[0x0065, 0x1050].value = "4"
    save(dataset, tmp_path / "a")
    message = refusal(tmp_path)
    assert "a Siemens mosaic" in message or "a grid of United Imaging" in message
    assert what in message
    assert "single slices" in message
    assert [len(series.files) for series in find_series(tmp_path).series] == [1]  # it is an input, whose reading fails


def test_a_volume_of_a_dynamic_series_of_mosaics_is_chosen(tmp_path):
    times = [stack(4) + k for k in range(3)]
    for k, slices in enumerate(times):
        write_mosaic(tmp_path / f"{k}", slices, InstanceNumber=k + 1, AcquisitionNumber=k + 1)
    assert "--select AcquisitionNumber=1 (4 slices)" in refusal(tmp_path)
    assert np.array_equal(read_series(tmp_path, select="AcquisitionNumber=2").pixels, times[1])


def test_streams_and_colors_and_a_mosaic_of_one_slice(tmp_path):
    slices = stack(5)
    write_mosaic(tmp_path / "gray" / "a", slices)
    assert np.array_equal(list(SeriesStream(tmp_path / "gray").slices()), slices)
    write_mosaic(tmp_path / "one" / "a", slices[:1])
    assert np.array_equal(read_series(tmp_path / "one").pixels, slices[:1])


def test_what_only_is_called_a_mosaic_is_left_as_it_is(tmp_path):
    dataset = make_mosaic(stack(4), Modality="US", ImageType=MOSAIC)
    save(dataset, tmp_path / "a")
    assert read_series(tmp_path).pixels.shape == (1, 12, 16)


def test_an_enhanced_object_that_is_called_a_mosaic_has_frames_of_its_own(tmp_path):
    slices = stack(4)
    about = {"Modality": "MR", "ImageType": MOSAIC}
    write_enhanced(tmp_path / "a", slices, np.arange(4)[:, None] * (0, 0, 2.0), **about)
    assert np.array_equal(read_series(tmp_path).pixels, slices)
    write_enhanced(tmp_path / "one", slices[:1], np.zeros((1, 3)), **about)
    assert np.array_equal(read_series(tmp_path / "one").pixels, slices[:1])


def test_a_mosaic_of_syngo_xa_which_has_no_csa_header_is_refused_by_name(tmp_path):
    dataset = without_privates(make_mosaic(stack(4), SoftwareVersions="syngo MR XA30"))
    block = dataset.private_block(0x0021, "SIEMENS MR SDI 02", create=True)
    block.add_new(0x04, "DS", "4.635")
    save(dataset, tmp_path / "a")
    message = refusal(tmp_path)
    assert "a Siemens mosaic" in message
    assert "enhanced object" in message


def test_a_csa_header_whose_creator_was_replaced_is_read(tmp_path):
    dataset = make_mosaic(stack(4))
    dataset[0x0029, 0x0010].value = "Anon"
    save(dataset, tmp_path / "a")
    assert np.array_equal(read_series(tmp_path).pixels, stack(4))


def test_slices_beside_mosaics_of_another_series_are_not_touched(tmp_path):
    write_mosaic(tmp_path / "mosaic" / "a", stack(4), SeriesInstanceUID=uid("mosaic"))
    write_series(tmp_path / "slices", stack(5).astype(np.int16), Modality="MR", SeriesInstanceUID=uid("slices"))
    read = {series.instance_uid: read_series(series.found).pixels for series in find_series(tmp_path).series}
    assert np.array_equal(read[uid("mosaic")], stack(4))
    assert np.array_equal(read[uid("slices")], stack(5))


def test_a_segmentation_refers_to_the_mosaic_without_frames_it_does_not_have(tmp_path):
    write_mosaic(tmp_path / "a", stack(5))
    image = read_series(find_series(tmp_path).series[0].found)
    mask = np.zeros(image.pixels.shape, np.uint8)
    mask[3, 2:4, 3:5] = 1
    for files in (image.files, image.found):
        sources = read_sources(files)
        write_segmentation(tmp_path / "seg.dcm", mask, sources, [SegmentClass.organ("liver")],
                           frame_numbers=image.frame_numbers)  # fmt: skip
        written = pydicom.dcmread(tmp_path / "seg.dcm")
        (group,) = written.PerFrameFunctionalGroupsSequence
        where = group.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(where, image.geometry.positions[3])
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == image.sop_instance_uids[0]
        assert "ReferencedFrameNumber" not in reference

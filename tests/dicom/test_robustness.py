# SPDX-License-Identifier: Apache-2.0
"""A public corpus of odd DICOM files: each is read as another decoder reads it, or refused; so is each damaged copy."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import itk
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.pixels import decode_frames, padding_mask
from bundle.pyraseg.dicom.series import read_series

ROOT = Path(__file__).resolve().parents[2]
CORPUS = "dicom_robustness"
# One image in two encodings.
PAIRS = [
    ("MR2_UNCR", "MR2_J2KR"),
    ("emri_small", "emri_small_RLE"),
    ("emri_small", "emri_small_jpeg_2k_lossless"),
    ("color-pl", "color-px"),
    ("JLSL_RGB_ILV0", "JLSL_RGB_ILV2"),
    ("US1_UNCI", "US1_J2KI"),
    ("liver", "liver_j2k"),
    ("liver_nonbyte_aligned", "liver_nonbyte_aligned_j2k"),
    ("OBXXXX1A", "OBXXXX1A_expb"),
    ("OBXXXX1A_rle_2frame", "OBXXXX1A_expb_2frame"),
    ("SC_rgb_16bit", "SC_rgb_expb_16bit"),
    ("SC_rgb_16bit_2frame", "SC_rgb_expb_16bit_2frame"),
    ("SC_rgb_32bit", "SC_rgb_expb_32bit"),
    ("SC_rgb_32bit_2frame", "SC_rgb_expb_32bit_2frame"),
]
# One image, and a lossy encoding of it: how far the values are apart at most.
LOSSY = [
    ("HTJ2KLossless_08_RGB", "HTJ2K_08_RGB", 4),
    ("JLSL_RGB_ILV0", "JLSN_RGB_ILV0", 3),
    ("RG3_J2KR", "RG3_J2KI", 9),
    ("MR2_UNCR", "MR2_J2KI", 32),
]
# Read by ITK's own GDCM to the same values: 8 bits of color, gray with its rescaling.
EQUAL_TO_ITK = """
    693_J2KR 693_UNCI HTJ2KLossless_08_RGB HTJ2K_08_RGB JLSL_16_15_1_1F JLSL_RGB_ILV0 JLSL_RGB_ILV2 JLSN_RGB_ILV0
    JPEG2000_UNC JPGLosslessP14SV1_1s_1f_8b MR2_J2KI MR2_J2KR MR2_UNCR OBXXXX1A OBXXXX1A_expb OBXXXX1A_expb_2frame
    OBXXXX1A_rle_2frame OT-PAL-8-face RG3_J2KI RG3_J2KR SC_rgb_dcmtk_ebcyn1_dcmd SC_rgb_dcmtk_ebcyn2_dcmd
    SC_rgb_dcmtk_ebcys2_dcmd SC_rgb_dcmtk_ebcys4_dcmd SC_ybr_full_uncompressed US1_J2KI US1_UNCI US1_UNCR color-pl
    color-px emri_small emri_small_RLE emri_small_jpeg_2k_lossless explicit_VR-UN vlut_04
""".split()  # noqa: SIM905
# Not read by ITK, and uncompressed: the type of the values as they lie in the file.
STORED = {
    "SC_rgb_16bit": "<u2",
    "SC_rgb_16bit_2frame": "<u2",
    "SC_rgb_expb_16bit": ">u2",
    "SC_rgb_expb_16bit_2frame": ">u2",
    "SC_rgb_32bit": "<u4",
    "SC_rgb_32bit_2frame": "<u4",
    "SC_rgb_expb_32bit": ">u4",
    "SC_rgb_expb_32bit_2frame": ">u4",
    "parametric_map_double_float": "<f8",
}
# ITK decodes these with the library that we use as well. This is what others make of them: libjpeg-turbo 3 and ljpeg,
# OpenJPH (all through imagecodecs 2026.3.6).
HASHES = {
    "JPGLosslessP14SV1_1s_1f_8b": "36e27e4f1e87a7d50407463323ddc3736736ecff35eb4e4a4c1b74646938835d",
    "HTJ2KLossless_08_RGB": "9d87240604f5d7522c6a8056ace6cefc2c8d6d0b07bd6e7303d5e5b21af9a49e",
}
MODALITY_LUT = "mlut_18"  # which ITK does not apply
PALETTE_OF_16_BITS = "gdcm-US-ALOKA-16"
REFUSED = {
    "emri_small_jpeg_2k_lossless_too_short": "cut short",
    **dict.fromkeys(("liver", "liver_deflate", "liver_j2k", "liver_nonbyte_aligned"), "SEG object"),
    **dict.fromkeys(("liver_nonbyte_aligned_j2k", "liver_nonbyte_aligned_rle"), "SEG object"),
}
UNDECODABLE = ("liver_deflate", "liver_nonbyte_aligned_rle")


@pytest.fixture(scope="module")
def corpus(real_data):
    return real_data / CORPUS


def decoded(corpus, name):
    return decode_frames(pydicom.dcmread(corpus / f"{name}.dcm", force=True))


def test_no_file_is_left_out(corpus):
    checked = {*EQUAL_TO_ITK, *STORED, MODALITY_LUT, PALETTE_OF_16_BITS, *REFUSED}
    assert {file.stem for file in corpus.glob("*.dcm")} == checked
    assert checked.isdisjoint(REFUSED.keys() & {*EQUAL_TO_ITK, *STORED})


@pytest.mark.parametrize("name", EQUAL_TO_ITK)
def test_equals_what_itk_reads(corpus, name):
    image = read_series(corpus / f"{name}.dcm")
    theirs = itk.array_from_image(itk.imread(str(corpus / f"{name}.dcm"), imageio=itk.GDCMImageIO.New()))
    theirs = theirs.astype(float).reshape(image.pixels.shape)
    if image.photometric == "MONOCHROME1":  # which ITK inverts
        theirs = 2 ** pydicom.dcmread(corpus / f"{name}.dcm").BitsStored - 1 - theirs
    valid = ~padding_mask(decoded(corpus, name), pydicom.dcmread(corpus / f"{name}.dcm", force=True))
    valid = valid if image.pixels.ndim == 3 else np.ones(image.pixels.shape, bool)
    assert valid.mean() > 0.7
    np.testing.assert_allclose(image.pixels[valid], theirs[valid], rtol=0, atol=2e-4)  # float32 of values up to 1664


@pytest.mark.parametrize("name", STORED)
def test_equals_the_bytes_of_the_file(corpus, name):
    dataset = pydicom.dcmread(corpus / f"{name}.dcm", force=True)
    stored = dataset.get("PixelData") or dataset.DoubleFloatPixelData
    pixels = decoded(corpus, name)
    np.testing.assert_array_equal(pixels, np.frombuffer(stored, STORED[name]).reshape(pixels.shape))


@pytest.mark.parametrize("name", HASHES)
def test_equals_what_a_third_decoder_made_of_it(corpus, name):
    assert hashlib.sha256(decoded(corpus, name).tobytes()).hexdigest() == HASHES[name]


def test_a_modality_lut_equals_pydicoms(corpus):
    dataset = pydicom.dcmread(corpus / f"{MODALITY_LUT}.dcm")
    expected = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    np.testing.assert_array_equal(read_series(corpus / f"{MODALITY_LUT}.dcm").pixels[0], expected)


def test_a_palette_of_16_bits_equals_pydicoms(corpus):
    dataset = pydicom.dcmread(corpus / f"{PALETTE_OF_16_BITS}.dcm")
    expected = pydicom.pixels.apply_color_lut(dataset.pixel_array, dataset)
    np.testing.assert_array_equal(decoded(corpus, PALETTE_OF_16_BITS)[0], expected)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_pairs_are_equal(corpus, one, other):
    np.testing.assert_array_equal(decoded(corpus, one), decoded(corpus, other))


@pytest.mark.parametrize(("exact", "lossy", "most"), LOSSY)
def test_lossy_encodings_are_near(corpus, exact, lossy, most):
    assert 0 < np.abs(decoded(corpus, exact).astype(int) - decoded(corpus, lossy)).max() <= most


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_file_and_the_reason(corpus, name):
    with pytest.raises(PyrasegError, match=rf"{name}\.dcm.*{REFUSED[name]}"):
        read_series(corpus / f"{name}.dcm")


@pytest.mark.parametrize("name", UNDECODABLE)
def test_what_no_decoder_knows_is_refused(corpus, name):
    with pytest.raises(PyrasegError, match=f"{name}.*cannot be decoded.*transfer syntax"):
        decoded(corpus, name)


def test_the_docs_list_every_refused_file():
    table = (ROOT / "docs" / "dicom.md").read_text().partition("## What is refused")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, flags=re.MULTILINE))
    assert rows.keys() == REFUSED.keys()
    assert {name for name, reason in rows.items() if "no decoder" in reason} == set(UNDECODABLE)
    assert all(("segmentation" in rows[name]) == (reason == "SEG object") for name, reason in REFUSED.items())


@pytest.mark.parametrize("columns", [100, 65535])
def test_a_stream_of_another_size_than_the_header_says_is_refused(corpus, tmp_path, columns):
    # GDCM ends the process at the larger one and returns a wrong image at the smaller.
    dataset = pydicom.dcmread(corpus / "JLSN_RGB_ILV0.dcm", force=True)
    dataset.Columns = columns
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset)
    with pytest.raises(PyrasegError, match=r"a\.dcm.*cannot be decoded"):
        read_series(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("keyword", "value"), [("NumberOfFrames", 2**31 - 1), ("NumberOfFrames", -1), ("Rows", 65535), ("Columns", 65535)]
)
def test_sizes_that_the_file_cannot_hold_are_refused(corpus, tmp_path, keyword, value):
    for name in ("emri_small", "emri_small_RLE"):
        dataset = pydicom.dcmread(corpus / f"{name}.dcm")
        setattr(dataset, keyword, value)
        pydicom.dcmwrite(tmp_path / "a.dcm", dataset)
        with pytest.raises(PyrasegError, match=r"a\.dcm"):
            read_series(tmp_path / "a.dcm")


@pytest.mark.slow
def test_five_hundred_damaged_headers(real_data):
    command = [sys.executable, "-m", "tests.helpers.dicom_mutations", str(real_data), "500"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = result.stdout.strip().splitlines()
    assert result.returncode == 0, f"{lines[-1]} ended the process\n{result.stderr[-2000:]}"
    outcomes = [re.search(r": (read|refused) ", line) for line in lines]
    assert len(lines) == 500 and all(outcomes)
    counts = {kind: sum(found[1] == kind for found in outcomes) for kind in ("read", "refused")}
    assert min(counts.values()) > 100  # neither everything nor nothing is refused
    assert "pydicom" not in result.stderr and "Warning" not in result.stderr
    assert len(result.stderr.splitlines()) <= counts["refused"]
    assert "SECRET" not in result.stdout + result.stderr

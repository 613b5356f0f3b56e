# SPDX-License-Identifier: Apache-2.0
"""The runtime gives the labels that the bundle gives, for every form in which an image may come."""

import json
import os
import subprocess
import sys
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import onnx
import pydicom
import pytest
from PIL import Image

from bundle.pyraseg.runtime.__main__ import main
from tests.helpers.dicom_files import item, uid, write_enhanced, write_image, write_series
from tests.helpers.runtime_series import SERIES, check, gray, png, series

ROOT = Path(__file__).resolve().parents[2]


def run(model: Path, source: Path, output: Path, *options: str) -> int:
    return main([str(model), str(source), str(output), "--threads", "1", *options])


@pytest.mark.parametrize("name", SERIES)
def test_a_ct_series(name, models, tmp_path):
    folder = series(tmp_path / "in", name)
    assert run(models.ct.path, folder, tmp_path / "out") == 0
    check(png(tmp_path / "out" / "in_labels"), models.ct.truth(folder))


@pytest.mark.parametrize("slices", [1, 2])
def test_a_series_of_fewer_slices_than_the_network_sees(slices, models, tmp_path):
    write_series(tmp_path / "in", gray()[:slices], spacing=(1.3, 0.9), slice_step=2.5)
    assert run(models.ct.path, tmp_path / "in", tmp_path / "out") == 0
    (result,) = (tmp_path / "out").iterdir()
    check(png(result), models.ct.truth(tmp_path / "in"))


def test_one_of_several_echoes_is_chosen(models, tmp_path, capsys):
    for echo in (1, 2):
        numbers = {"per_slice": lambda k, echo=echo: {"InstanceNumber": 6 * echo + k}}  # else two series
        series(tmp_path / "in" / str(echo), Modality="MR", EchoTime=echo, RescaleSlope=echo**2, **numbers)
    truth = models.mr.truth(tmp_path / "in" / "2")
    assert run(models.mr.path, tmp_path / "in", tmp_path / "out") == 1
    assert "EchoTime: 1 (6), 2 (6). Read one of them with --select EchoTime=1 (6 slices) or" in capsys.readouterr().err
    assert run(models.mr.path, tmp_path / "in", tmp_path / "out", "--select", "EchoTime=2") == 0
    (result,) = (tmp_path / "out").iterdir()
    check(png(result), truth)
    assert run(models.mr.path, tmp_path / "in", tmp_path / "out", "--select", "EchoTim=2") == 1
    assert "The nearest name is 'EchoTime'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plain", "rescaled by slice", "padded", "downwards"])
def test_windows_by_percentiles_of_the_whole_series(name, models, tmp_path):
    folder = series(tmp_path / "in", name, Modality="MR")
    assert run(models.mr.path, folder, tmp_path / "out") == 0
    check(png(tmp_path / "out" / "in_labels"), models.mr.truth(folder))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
def test_windows_of_the_header_slice_by_slice(function, models, tmp_path):
    def window(k: int) -> dict[str, object]:
        return {"WindowCenter": 40 + 30 * k, "WindowWidth": 300 + 50 * k, "VOILUTFunction": function}

    folder = series(tmp_path / "in", "downwards", per_slice=window)
    assert run(models.header.path, folder, tmp_path / "out") == 0
    check(png(tmp_path / "out" / "in_labels"), models.header.truth(folder))


def test_a_multi_frame_object(models, tmp_path):
    positions = np.array([[0, 0, 2.5 * z] for z in (3, 0, 5, 1, 2, 4)])  # frames in no order
    rescale = {"PixelValueTransformationSequence": item(RescaleSlope=1, RescaleIntercept=-20, RescaleType="HU")}
    path = write_enhanced(tmp_path / "in" / "one.dcm", gray(), positions, spacing=(1.3, 0.9), shared=rescale)
    assert run(models.ct.path, path, tmp_path / "out") == 0
    check(png(tmp_path / "out" / "one_labels"), models.ct.truth(path))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("size", [(33, 47), (64, 48), (301, 200)])
def test_photographs(suffix, size, models, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (7, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(tmp_path / f"a.{suffix}")
    assert run(models.photograph.path, tmp_path / f"a.{suffix}", tmp_path / "out") == 0
    check(png(tmp_path / "out" / "a.png"), models.photograph.truth(tmp_path / f"a.{suffix}"))


def test_a_gray_photograph_and_one_in_dicom(models, tmp_path):
    small = Image.fromarray(np.random.default_rng(1).integers(0, 255, (7, 5), dtype=np.uint8))
    values = np.asarray(small.resize((60, 50), Image.Resampling.BICUBIC))
    (tmp_path / "in").mkdir()
    Image.fromarray(values).convert("LA").save(tmp_path / "in" / "alpha.png")
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "Modality": "XC"}
    write_image(tmp_path / "in" / "gray.dcm", values, **eight, SeriesInstanceUID=uid("gray"))
    color = np.stack([values, values[::-1], values[:, ::-1]], -1)
    rgb = {
        "SamplesPerPixel": 3,
        "PlanarConfiguration": 0,
        "PhotometricInterpretation": "RGB",
        "Rows": 50,
        "Columns": 60,
    }
    write_image(tmp_path / "in" / "rgb.dcm", color.tobytes(), **eight, **rgb, SeriesInstanceUID=uid("rgb"))
    assert run(models.photograph.path, tmp_path / "in", tmp_path / "out") == 0
    for name in ("alpha.png", "gray.dcm", "rgb.dcm"):
        check(png(tmp_path / "out" / f"{name[:-4]}.png"), models.photograph.truth(tmp_path / "in" / name))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_radiograph_in_dicom(photometric, models, tmp_path):
    image = {"Modality": "DX", "PhotometricInterpretation": photometric, "FrameOfReferenceUID": None}
    write_image(tmp_path / "in" / "chest.dcm", gray()[0] + 400, **image)
    assert run(models.radiograph.path, tmp_path / "in", tmp_path / "out") == 0
    check(png(tmp_path / "out" / "chest.png"), models.radiograph.truth(tmp_path / "in" / "chest.dcm"))


def test_a_radiograph_of_16_bits_in_png(models, tmp_path):
    Image.fromarray((gray()[0] + 500).astype(np.uint16) * 40).save(tmp_path / "chest.png")
    assert run(models.radiograph.path, tmp_path / "chest.png", tmp_path / "out") == 0
    check(png(tmp_path / "out" / "chest.png"), models.radiograph.truth(tmp_path / "chest.png"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_in_a_radiograph(value, models, tmp_path, capsys):
    pixels = gray()[0].astype(np.float32) + 400
    pixels[:, :9] = value
    Image.fromarray(pixels).save(tmp_path / "chest.tif")
    assert run(models.radiograph.path, tmp_path / "chest.tif", tmp_path / "out") == 0
    check(png(tmp_path / "out" / "chest.png"), models.radiograph.truth(tmp_path / "chest.tif"))
    pixels[20, 30] = value
    Image.fromarray(pixels).save(tmp_path / "hole.tif")
    assert run(models.radiograph.path, tmp_path / "hole.tif", tmp_path / "out") == 1
    assert "column 30, row 20, slice 0" in capsys.readouterr().err


def test_values_that_are_not_finite_in_a_volume(models, tmp_path, capsys):
    stack = gray().astype(np.float32)
    stack[:, :9] = np.nan
    write_series(tmp_path / "in", stack, spacing=(1.3, 0.9), slice_step=2.5, Modality="MR")
    assert run(models.mr.path, tmp_path / "in", tmp_path / "out") == 0
    check(png(tmp_path / "out" / "in_labels"), models.mr.truth(tmp_path / "in"))
    stack[3, 20, 30] = np.nan
    write_series(tmp_path / "in", stack, spacing=(1.3, 0.9), slice_step=2.5, Modality="MR")
    assert run(models.mr.path, tmp_path / "in", tmp_path / "hole") == 1
    assert "slice_003.dcm holds NaN or infinity inside the image" in capsys.readouterr().err


def test_an_output_that_is_not_finite_makes_no_mask(models, tmp_path, capsys):
    model = onnx.load(models.radiograph.path)
    (weight,) = (item for item in model.graph.initializer if "last.weight" in item.name)
    huge = np.full(tuple(weight.dims), 3e38, np.float32)  # finite, and too large for sums
    weight.CopyFrom(onnx.numpy_helper.from_array(huge, weight.name))
    onnx.save(model, tmp_path / "huge.onnx")
    Image.fromarray((gray()[0] + 500).astype(np.uint16) * 40).save(tmp_path / "chest.png")
    assert run(tmp_path / "huge.onnx", tmp_path / "chest.png", tmp_path / "out") == 1
    assert "output is NaN or infinite, and makes no mask" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.png"))


def test_nifti_lies_where_the_series_lies(models, tmp_path):
    folder = series(tmp_path / "in", "oblique", origin=(-30, 12, 7))
    assert run(models.ct.path, folder, tmp_path / "out", "--format", "nifti") == 0
    found = nib.load(tmp_path / "out" / "in.nii.gz")
    check(np.asarray(found.dataobj).transpose(2, 1, 0), models.ct.truth(folder))
    first = pydicom.dcmread(folder / "slice_000.dcm")
    last = pydicom.dcmread(folder / "slice_005.dcm")
    to_ras = np.array([-1, -1, 1])
    corners = [found.affine @ [0, 0, 0, 1], found.affine @ [0, 0, 5, 1], found.affine @ [51, 44, 0, 1]]
    along_row, along_column = np.reshape(first.ImageOrientationPatient, (2, 3)).astype(float)
    across = 51 * 0.9 * along_row + 44 * 1.3 * along_column
    begin = np.array(first.ImagePositionPatient)
    for corner, place in zip(corners, (begin, np.array(last.ImagePositionPatient), begin + across), strict=True):
        np.testing.assert_allclose(corner[:3], place * to_ras, atol=1e-4)
    assert found.header.get_xyzt_units()[0] == "mm"


def test_nifti_of_slices_with_a_gap(models, tmp_path):
    folder = series(tmp_path / "in", "with a gap")
    assert run(models.ct.path, folder, tmp_path / "out", "--format", "nifti") == 0
    found = nib.load(tmp_path / "out" / "in.nii.gz")
    planes = np.rint([(2.5 * k + 40 * (k > 2)) / 2.5 for k in range(6)]).astype(int)
    labels = np.asarray(found.dataobj).transpose(2, 1, 0)
    check(labels[planes], models.ct.truth(folder))
    assert not np.delete(labels, planes, axis=0).any()
    assert found.affine[:3, 2] == pytest.approx([0, 0, 2.5]) and found.affine[2, 3] == 0


@pytest.mark.parametrize("name", ["plain", "downwards"])
def test_a_dicom_segmentation(name, models, tmp_path):
    folder = series(tmp_path / "in", name)
    assert run(models.ct.path, folder, tmp_path / "out", "--format", "seg") == 0
    seg = hd.seg.segread(tmp_path / "out" / "in_seg.dcm")
    assert [seg.get_segment_description(n).segment_label for n in (1, 2)] == ["liver", "spleen"]
    algorithm = seg.get_segment_description(1).algorithm_identification
    assert (algorithm.name, algorithm.version) == ("Pyraseg", "1.2.3, weights 0123456789ab")
    files = sorted(folder.iterdir(), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    check(found.astype(np.uint8), models.ct.truth(folder))


def test_a_label_map_of_dicom(models, tmp_path, capsys):
    folder, words = series(tmp_path / "in"), ("--format", "seg", "--seg_type")
    for name, *kind in (("binary",), ("map", *words[2:], "LABELMAP")):
        assert run(models.ct.path, folder, tmp_path / name, *words[:2], *kind) == 0
    found = {name: pydicom.dcmread(tmp_path / name / "in_seg.dcm") for name in ("binary", "map")}
    assert {name: seg.SegmentationType for name, seg in found.items()} == {"binary": "BINARY", "map": "LABELMAP"}
    volumes = [hd.seg.Segmentation.from_dataset(seg).get_volume(combine_segments=True).array for seg in found.values()]
    assert volumes[0].any() and np.array_equal(*volumes)
    assert run(models.ct.path, folder, tmp_path / "out", *words, "FRACTIONAL") == 1
    assert "an exported model gives labels alone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(models.ct.path), str(folder), str(tmp_path / "out"), "--seg_type", "LABELMAP"])
    assert "--seg_type is of --format seg" in capsys.readouterr().err


# --- a folder of everything, and what goes wrong ---


def test_a_folder_of_everything(models, tmp_path, capsys, caplog):
    root = tmp_path / "in"
    for case in "ab":
        series(root / case / "ct", SeriesInstanceUID=uid(case), PatientName="ZEBRA^STRIPED", PatientID="ZEBRA")
    (root / "lost.dcm").write_text("not an image")
    (root / "none").mkdir()
    write_image(root / "a" / "scout.dcm", gray()[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    Image.new("RGB", (30, 20)).save(root / "p.jpg")
    nib.save(nib.Nifti1Image(gray(), np.eye(4)), root / "n.nii.gz")
    own = {"SeriesInstanceUID": uid("cut"), "PatientName": "ZEBRA^STRIPED"}
    (cut,) = write_series(root, gray()[:1], names=["cut.dcm"], **own)
    cut.write_bytes(cut.read_bytes()[:-300])
    assert run(models.ct.path, root, root / "out") == 1
    told = capsys.readouterr()
    assert sorted(path.relative_to(root / "out").as_posix() for path in (root / "out").glob("*/*")) == [
        "a/ct_labels",
        "b/ct_labels",
    ]
    assert not [path for path in root.rglob(".*")]  # nothing half-written is left
    assert "2 of 7 inputs segmented, written to" in told.out
    assert "left out: 1 localizer (a/scout.dcm)" in caplog.text
    assert told.err.splitlines()[-1] == "pyraseg: 5 failed: cut, lost.dcm, n, none, p"
    for name, reason in [
        ("cut", "is 300 bytes shorter"), ("n", "The full bundle reads NIfTI"), ("none", "is an empty folder"),
        ("lost.dcm", "is not DICOM"), ("p", "no patient position"),
    ]:  # fmt: skip
        assert any(line.startswith(f"{name}: failed, ") and reason in line for line in told.err.splitlines())
    assert "ZEBRA" not in told.out + told.err and "Traceback" not in told.err
    assert run(models.ct.path, root / "a", root / "out" / "again") == 0  # a second run
    assert run(models.ct.path, root / "a", root / "out" / "again") == 0  # over the results of the first
    (root / "out" / "again" / "ct_labels" / "mine.txt").write_text("keep")
    assert run(models.ct.path, root / "a", root / "out" / "again") == 1
    assert (root / "out" / "again" / "ct_labels" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("nothing", "There is no model at"),
        ("text", "cannot be loaded as an ONNX model"),
        ("network", "it holds the network alone"),
        ("input", "There is nothing at"),
        ("empty", "holds no image"),
        ("same", "Give two folders"),
    ],
)
def test_what_stops_a_run_is_one_message(wrong, text, models, tmp_path, capsys):
    model, source, output = models.ct.path, series(tmp_path / "in"), tmp_path / "out"
    if wrong == "nothing":
        model = tmp_path / "none.onnx"
    elif wrong == "text":
        model = tmp_path / "text.onnx"
        model.write_text("not a model")
    elif wrong == "network":
        model = models.ct.network_path
    elif wrong == "input":
        source = tmp_path / "none"
    elif wrong == "empty":
        source = tmp_path / "empty"
        source.mkdir()
    else:
        output = source
    assert run(model, source, output) == 1
    told = capsys.readouterr()
    assert told.err.startswith("pyraseg: ") and text in told.err and told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [("photograph", "has 6 slices or frames"), ("radiograph", "has 6 slices or frames"), ("header", "0 windows")],
)
def test_a_series_that_is_no_image_for_the_model(kind, text, models, tmp_path, capsys):
    assert run(getattr(models, kind).path, series(tmp_path / "in"), tmp_path / "out") == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("pixel", [3000, 0.001])
def test_a_pixel_size_that_no_image_has(pixel, models, tmp_path, capsys):
    write_series(tmp_path / "in" / "wrong", gray()[:2], spacing=(pixel, pixel), slice_step=2.5)
    series(tmp_path / "in" / "right")
    assert run(models.ct.path, tmp_path / "in", tmp_path / "out") == 1
    assert f"pixels of {pixel} x {pixel} mm. At the spacing of the model" in capsys.readouterr().err
    assert (tmp_path / "out" / "right_labels").is_dir() and not (tmp_path / "out" / "wrong_labels").exists()


@pytest.mark.parametrize("form", ["nifti", "seg"])
def test_a_photograph_has_no_place_in_a_patient(form, models, tmp_path, capsys):
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png")
    assert run(models.photograph.path, tmp_path / "p.png", tmp_path / "out", "--format", form) == 1
    assert "Give --format png" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*"))


def test_mistyped_options_are_refused(models, tmp_path, capsys):
    for options in (["--threads", "0"], ["--thread", "x"], ["--format", "gif"], ["--select", "EchoTime"]):
        with pytest.raises(SystemExit) as stopped:
            main([str(models.ct.path), str(tmp_path), str(tmp_path / "out"), *options])
        assert stopped.value.code == 2


FORBIDDEN = "torch monai ignite timm scipy skimage itk matplotlib nibabel highdicom onnx"
BARE = f"""
import sys
for name in '{FORBIDDEN}'.split():
    sys.modules[name] = None  # makes an import fail
from bundle.pyraseg.runtime.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_needs_neither_torch_nor_monai(models, tmp_path):
    folder = series(tmp_path / "in", "JPEG 2000")
    arguments = [str(models.ct.path), str(folder), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BARE, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check(png(tmp_path / "out" / "in_labels"), models.ct.truth(folder))
    for form, package in (("nifti", "nibabel"), ("seg", "highdicom")):
        command = [sys.executable, "-c", BARE, *arguments, "--format", form]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and f"pip install {package}" in done.stderr and "Traceback" not in done.stderr


def test_a_photograph_needs_no_dicom(models, tmp_path):
    """What is not used is not imported: pydicom alone takes as long as half of the rest."""
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(photo)
    bare = BARE.replace(FORBIDDEN, f"{FORBIDDEN} pydicom gdcm requests")
    command = [sys.executable, "-c", bare, str(models.photograph.path), str(photo), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.asarray(Image.open(tmp_path / "out" / "photo.png"))
    assert np.array_equal(found, models.photograph.truth(str(photo))[0])


def test_one_of_several_series_is_chosen(models, tmp_path, capsys, caplog):
    for number, phase in ((3, "Arterial"), (4, "Portal")):
        own = {"SeriesInstanceUID": uid(phase), "SeriesNumber": number, "SeriesDescription": phase}
        files = [f"{phase}_{k}.dcm" for k in range(6)]
        write_series(tmp_path / "in", gray() + 20 * number, spacing=(1.3, 0.9), slice_step=2.5, names=files, **own)
    truth = models.ct.truth([str(file) for file in sorted((tmp_path / "in").glob("Portal*"))])
    assert run(models.ct.path, tmp_path / "in", tmp_path / "out", "--series", "portal") == 0
    (result,) = (tmp_path / "out").iterdir()
    assert result.name == "in_4_Portal_labels"
    check(png(result), truth)
    assert "in_4_Portal  CT        4       Portal" in caplog.text  # the table of what was found
    assert run(models.ct.path, tmp_path / "in", tmp_path / "out", "--series", "venous") == 1
    assert 'number 3, "Arterial"' in capsys.readouterr().err


def test_an_image_that_the_model_is_not_for(models, tmp_path, capsys):
    """The settings in the metadata of the file say what it is for."""
    settings = {"modality": ["CT"], "body_part": ["LIVER"], "plane": ["axial"], "pet_units": "suv"}
    model = tmp_path / "ct.onnx"
    proto = onnx.load(models.ct.path)
    onnx.helper.set_model_props(
        proto, {p.key: p.value for p in proto.metadata_props} | {"settings": json.dumps(settings)}
    )
    onnx.save(proto, model)
    series(tmp_path / "in" / "mr", Modality="MR", BodyPartExamined="KNEE")
    series(tmp_path / "in" / "ct", SeriesInstanceUID=uid("ct"), BodyPartExamined="KNEE")
    assert run(model, tmp_path / "in", tmp_path / "out") == 1
    told = capsys.readouterr()
    assert "ct ->" in told.out and "mr: failed" in told.err
    assert "its modality is MR, and the model is for CT" in told.err and "--refuse none" in told.err
    assert run(model, tmp_path / "in", tmp_path / "all", "--refuse", "none") == 0
    assert run(model, tmp_path / "in", tmp_path / "none", "--refuse", "modality", "body_part") == 1
    assert "2 failed: ct, mr" in capsys.readouterr().err
    assert run(model, tmp_path / "in", tmp_path / "no", "--refuse", "colour") == 1
    assert "refuse is 'colour'; it is one of modality, body_part, plane, pet_units, none." in capsys.readouterr().err

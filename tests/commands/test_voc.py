# SPDX-License-Identifier: Apache-2.0
"""DICOM to Pascal VOC as a user runs it: right pixels, masks on the right organ, nothing of the patient."""

import csv
import json
import shutil
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from skimage.draw import polygon2mask

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.torchvision_ops import import_with_torchvision
from bundle.pyraseg_tools.commands.voc import main
from bundle.pyraseg_tools.datasets.phantom.cases import PLANS, phantom_case
from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from bundle.pyraseg_tools.datasets.voc.pictures import Mapping16, restore_values
from tests.helpers.dicom_files import uid, write_image, write_series
from tests.helpers.warm import python

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SEED, SIZE = 2024, 72
CLASSES = ["background", "liver", "lesion", "spleen", "kidney"]
PHANTOM = ["--class-names", *CLASSES, "--label-pattern", "../labels.nii.gz", "--workers", "2"]


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a CSV by the names of the pictures."""
    with path.open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def linear(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Return PS3.3 C.11.2.1.2.1 with ymin 0 and ymax 255, to the nearest whole number."""
    return np.rint(np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255).astype(np.uint8)


def picture(tree: Path, name: str, suffix: str = ".png") -> np.ndarray:
    return np.asarray(Image.open(tree / "JPEGImages" / f"{name}{suffix}"))


def mask(tree: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(tree / "SegmentationClass" / f"{name}.png"))


def restored(tree: Path, name: str) -> np.ndarray:
    """Return the values of a 16-bit picture as `images.csv` says."""
    row = rows_of(tree / "images.csv")[name]
    return restore_values(picture(tree, name), Mapping16(float(row["value_slope"]), float(row["value_intercept"])))


# --- the phantom, in every orientation ---


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "study"
    write_phantom_study(folder, seed=SEED, size=SIZE)
    return folder


@pytest.fixture(scope="module")
def tree(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the study as 8-bit PNG, its link beside it."""
    folder = tmp_path_factory.mktemp("voc") / "tree"
    main([str(study), str(folder), "--format", "png", *PHANTOM])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "index", range(len(PLANS)), ids=lambda index: "-".join([str(index), *sorted(PLANS[index].traits)])
)
def test_pixels_and_masks_of_the_phantom(study, tree, index):
    """The truth is the phantom in memory and the file as pydicom reads it; the link says which slice is meant."""
    case = phantom_case(SEED, index, size=SIZE)
    link = {
        name: row
        for name, row in rows_of(tree.with_name("tree_link.csv")).items()
        if row["patient_id"] == f"phantom-{index + 1:02}"
    }
    assert len(link) == len(case.hu)
    found = []
    for name, row in link.items():
        dataset = pydicom.dcmread(row["file"])
        k = int(row["frame"] if "NumberOfFrames" in dataset else dataset.InstanceNumber) - 1
        found.append(k)
        assert np.array_equal(mask(tree, name), case.labels[k])

        stored = dataset.pixel_array.reshape(-1, *case.hu.shape[1:])[int(row["frame"]) - 1]
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", -1024))
        hu = stored * slope + intercept
        center, width = (40, 400)  # the first of every header of the phantom
        valid = stored != dataset.get("PixelPaddingValue", -5000)
        exact = np.clip((hu - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255  # PS3.3 C.11.2.1.2.1
        shown = picture(tree, name)
        assert np.abs(shown - exact)[valid].max() <= 0.5 + 1e-4  # the nearest number; slopes of 0.75 make ties
        assert (shown[~valid] == 0).all()
        assert np.abs(hu - case.hu[k])[valid].max() <= slope / 2  # it is the slice that the mask belongs to
    assert sorted(found) == list(range(len(case.hu)))


@pytest.mark.slow
def test_the_split_is_by_patient(tree):
    listed = {part: (tree / "ImageSets/Segmentation" / f"{part}.txt").read_text().split() for part in
              ("train", "val", "test", "trainval")}  # fmt: skip
    patients = {part: {name.split("_")[0] for name in names} for part, names in listed.items()}
    assert [len(patients[part]) for part in ("train", "val", "test")] == [17, 3, 4]
    assert len(patients["train"] | patients["val"] | patients["test"]) == 24
    assert listed["trainval"] == sorted(listed["train"] + listed["val"])
    images = rows_of(tree / "images.csv")
    assert sorted(images) == sorted(listed["trainval"] + listed["test"])
    assert {row["part"] for row in images.values()} == {"train", "val", "test"}
    with_kidney = {name for name, row in images.items() if "4" in row["classes"].split()}
    assert with_kidney == {name for name in images if (mask(tree, name) == 4).any()}


def test_nothing_in_the_tree_tells_of_a_patient(study, tree):
    """Neither a name nor an ID, date, UID or path is in any file of the tree or in its names; all are in the link."""
    link = tree.with_name("tree_link.csv")
    header = pydicom.dcmread(next((study / "case_03" / "ct").iterdir()), stop_before_pixels=True)
    secrets = [str(header.PatientID), str(header.StudyInstanceUID), str(header.SeriesInstanceUID), str(study)]
    assert all(secret in link.read_text() for secret in secrets)
    secrets += ["phantom-", "Phantom^", "20240101", "case_", "1.2.826."]
    for path in tree.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(secret in path.relative_to(tree).as_posix() for secret in secrets)
        assert not any(secret.encode() in content for secret in secrets), path
    assert link.stat().st_mode & 0o077 == 0  # nobody else may read it
    numbers = {row["patient_id"]: row["patient"] for row in rows_of(link).values()}
    assert [numbers[name] for name in sorted(numbers)] != sorted(numbers.values())  # not in the order of the IDs


def test_jpeg_is_near_and_torchvision_reads_it(study, tree, tmp_path):
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    main([str(study), str(folder), *PHANTOM, "--link", str(tmp_path / "link.csv")])
    import_with_torchvision("torchvision")
    from torchvision.datasets import VOCSegmentation

    sizes = []
    for part in ("train", "val", "trainval"):
        dataset = VOCSegmentation(tmp_path, year="2012", image_set=part)
        names = (folder / "ImageSets/Segmentation" / f"{part}.txt").read_text().split()
        sizes.append(len(dataset))
        for index in range(0, len(dataset), 29):
            image, target = dataset[index]
            exact = picture(tree, names[index])
            assert np.abs(np.asarray(image.convert("L")).astype(int) - exact).mean() < 2
            assert np.array_equal(target, mask(tree, names[index]))
    assert sizes[0] + sizes[1] == sizes[2] > 300


def test_three_windows_and_sixteen_bits(study, tmp_path):
    source = study / "case_09"  # JPEG 2000, NIfTI
    rgb = ["--window", "lung", "center=90,width=180", "percentiles=1,99", "--format", "png"]
    main([str(source), str(tmp_path / "rgb"), *PHANTOM, *rgb])
    main([str(source), str(tmp_path / "deep"), *PHANTOM, "--format", "png16"])
    everything = np.stack([restored(tmp_path / "deep", name) for name in rows_of(tmp_path / "deep" / "images.csv")])
    low, high = np.percentile(everything, [1, 99])
    for name, row in rows_of(tmp_path / "rgb_link.csv").items():
        hu = pydicom.dcmread(row["file"]).pixel_array - 1024
        assert np.array_equal(restored(tmp_path / "deep", name), hu)
        shown = picture(tmp_path / "rgb", name)
        assert np.array_equal(shown[..., 0], linear(hu, -600, 1500))
        assert np.array_equal(shown[..., 1], linear(hu, 90, 180))
        exact = np.clip((hu - low) / (high - low), 0, 1) * 255
        assert np.abs(shown[..., 2] - exact).max() <= 0.51
    description = json.loads((tmp_path / "deep" / "conversion.json").read_text())
    assert description["class_names"] == CLASSES
    assert description["values"].startswith("rescaled units (units) = value_slope * pixel + value_intercept")


def test_rescale_by_slice_is_lossless(study, tmp_path):
    main([str(study / "case_11"), str(tmp_path / "deep"), *PHANTOM, "--format", "png16"])  # slopes of 0.5, 0.75 ...
    for name, row in rows_of(tmp_path / "deep_link.csv").items():
        dataset = pydicom.dcmread(row["file"])
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert np.array_equal(restored(tmp_path / "deep", name), hu)


# --- real series ---


def test_the_abdomen_with_left_handed_labels(real_data, tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"spleen": [1], "liver": [5], "background": ["*"]}))
    main(
        [str(real_data / "ct_abdomen" / "dicom"), str(tmp_path / "deep"), "--format", "png16", "--class-names",
         "background", "liver", "spleen", "--label-names", str(names), "--label-pattern", "../labels.nii.gz"]
    )  # fmt: skip
    labels = np.asarray(nib.load(real_data / "ct_abdomen" / "labels.nii.gz").dataobj)
    link = rows_of(tmp_path / "deep_link.csv")
    heights = {name: float(pydicom.dcmread(row["file"]).ImagePositionPatient[2]) for name, row in link.items()}
    hu, classes = [], []
    for k, name in enumerate(sorted(heights, key=heights.get)):
        truth = labels[:, ::-1, k].T
        classes.append(mask(tmp_path / "deep", name))
        hu.append(restored(tmp_path / "deep", name))
        assert np.array_equal(classes[-1], np.select([truth == 5, truth == 1], [1, 2]))
        dataset = pydicom.dcmread(link[name]["file"])
        assert np.array_equal(hu[-1], dataset.pixel_array * dataset.RescaleSlope + dataset.RescaleIntercept)
    hu, classes = np.stack(hu), np.stack(classes)
    # A mask that is mirrored or shuffled has 95.8 or 375 in the liver.
    assert hu[classes == 1].std() == pytest.approx(21.7, abs=0.1)
    assert hu[classes == 2].std() == pytest.approx(20.6, abs=0.1)
    centers = [np.argwhere(classes == value).mean(axis=0)[2] for value in (1, 2)]
    assert centers[0] < 230 < 300 < centers[1]  # the liver on the left of the picture, the spleen on the right


def test_the_liver_with_a_seg_or_an_nrrd(real_data, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(real_data / "ct_liver_dicom_seg" / "ct-3slice", source / "ct")
    shutil.copy(real_data / "ct_liver_dicom_seg" / "liver.dcm", source)
    shutil.copy(real_data / "ct_liver_dicom_seg" / "liver_spine_seg.nrrd", tmp_path)
    (tmp_path / "table.csv").write_text("series,label\nct,liver_spine_seg.nrrd\n")
    main([str(source), str(tmp_path / "seg"), "--format", "png", "--class-names", "background", "liver"])
    main([str(source), str(tmp_path / "nrrd"), "--format", "png", "--class-names", "background", "liver", "spine",
          "--table", str(tmp_path / "table.csv")])  # fmt: skip

    truth = itk.imread(real_data / "ct_liver_dicom_seg" / "liver_spine_seg.nrrd")
    values = np.asarray(truth)
    link = rows_of(tmp_path / "seg_link.csv")
    assert len(link) == 3
    for name, row in link.items():
        dataset = pydicom.dcmread(row["file"])
        index = truth.TransformPhysicalPointToIndex([float(v) for v in dataset.ImagePositionPatient])
        assert tuple(index)[:2] == (0, 0)
        expected = values[index[2]]
        assert np.array_equal(mask(tmp_path / "seg", name), expected == 1)
        assert np.array_equal(mask(tmp_path / "nrrd", name), expected)
        stored = dataset.pixel_array
        hu = stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        valid = stored != -2000
        assert 0.2 < 1 - valid.mean() < 0.23
        shown = picture(tmp_path / "seg", name)
        assert np.array_equal(shown[valid], linear(hu, 40, 400)[valid])
        assert (shown[~valid] == 0).all()
        flipped = [np.flip(expected == 1, axes) for axes in (0, 1, (0, 1))]
        assert hu[expected == 1].std() < 0.5 * min(hu[other].std() for other in flipped)
    assert {name: row["classes"] for name, row in rows_of(tmp_path / "nrrd" / "images.csv").items()} == {
        name: " ".join(map(str, np.unique(mask(tmp_path / "nrrd", name)))) for name in link
    }


def test_contours_of_a_structure_set(real_data, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("ct_1.dcm", "ct_2.dcm", "rt.dcm"):
        shutil.copy(real_data / "ct_rtstruct" / "mock_data" / name, source)
    main([str(source), str(tmp_path / "tree"), "--format", "png", "--class-names", "background", "ROI-1"])
    contours = pydicom.dcmread(source / "rt.dcm").ROIContourSequence[0].ContourSequence
    painted = 0
    for name, row in rows_of(tmp_path / "tree_link.csv").items():
        dataset = pydicom.dcmread(row["file"])
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert np.array_equal(picture(tmp_path / "tree", name), linear(hu, 0, 40))
        expected = np.zeros(hu.shape, bool)
        x, y, z = map(float, dataset.ImagePositionPatient)
        between_rows, between_columns = map(float, dataset.PixelSpacing)
        for contour in contours:  # axial slices: rows grow with y, columns with x
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            if abs(points[0, 2] - z) < 0.1:
                corners = np.stack([(points[:, 1] - y) / between_rows, (points[:, 0] - x) / between_columns], axis=1)
                expected ^= polygon2mask(hu.shape, corners)
        found = mask(tmp_path / "tree", name) == 1
        assert (found ^ expected).sum() <= 0.02 * expected.sum() + 1
        if expected.any():
            painted += 1
            centers = [np.argwhere(area).mean(axis=0) for area in (found, expected)]
            assert np.abs(centers[0] - centers[1]).max() < 0.1
    assert painted == 1  # the other contour lies on a slice that is absent


# --- what goes wrong ---


def test_a_bad_series_does_not_stop_the_others(tmp_path, capsys):
    source = tmp_path / "source"
    window = {"WindowCenter": 40, "WindowWidth": 400}
    write_series(source / "good", np.zeros((2, 6, 5), np.int16), **window)
    other = {"SeriesInstanceUID": uid("bad")}
    write_series(source / "bad", np.zeros((2, 6, 5), np.int16), slice_step=0.0, **window, **other)
    write_series(source / "dark", np.zeros((2, 6, 5), np.int16), SeriesInstanceUID=uid("dark"))
    result = python("-m", "scripts.dicom_to_voc", str(source), str(tmp_path / "tree"), "--images-only", cwd=ROOT)
    assert result.returncode == 1
    assert "Wrote 2 pictures of 1 patients to" in result.stdout.splitlines()[-1]
    assert "pyraseg: 2 series or files were not converted, the others are written:" in result.stderr
    assert f"{source / 'bad'} (series {uid('bad')}): " in result.stderr
    assert "'header' was asked for" in result.stderr
    assert "Traceback" not in result.stderr and "Secret" not in result.stdout + result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "tree", "tree_link.csv"]
    assert len(list((tmp_path / "tree" / "JPEGImages").iterdir())) == 2
    assert (tmp_path / "tree" / "ImageSets/Segmentation/train.txt").read_text() == ""


def test_nothing_is_left_where_nothing_could_be_converted(tmp_path):
    write_series(tmp_path / "source", np.zeros((2, 6, 5), np.int16))
    with pytest.raises(PyrasegError, match="1 series or files were not converted, nothing is written"):
        main([str(tmp_path / "source"), str(tmp_path / "tree"), "--images-only", "--workers", "0"])
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_pictures_without_a_label_are_in_no_list(tmp_path):
    window = {"WindowCenter": 40, "WindowWidth": 400}
    shared = {"Modality": "DX", "PatientID": "A", **window}
    for number in range(2):
        write_image(tmp_path / "source" / f"{number}.dcm", np.full((6, 5), number, np.uint16), **shared)
    drawn = np.zeros((6, 5), np.uint8)
    drawn[1, 2], drawn[4] = 255, 7
    Image.fromarray(drawn).save(tmp_path / "source" / "0.png")
    options = ["--class-names", "background", "lung", "--label-pattern", "{stem}.png", "--unknown-value", "7"]
    names = tmp_path / "names.json"
    names.write_text('{"lung": [255]}')
    main([str(tmp_path / "source"), str(tmp_path / "tree"), *options, "--label-names", str(names), "--workers", "0"])
    images = rows_of(tmp_path / "tree" / "images.csv")
    (listed,) = [name for name, row in images.items() if row["classes"]]
    assert images[listed]["classes"] == "0 1 255"
    assert (tmp_path / "tree" / "ImageSets/Segmentation/train.txt").read_text() == f"{listed}\n"
    assert np.array_equal(mask(tmp_path / "tree", listed), np.select([drawn == 255, drawn == 7], [1, 255]))
    assert len(list((tmp_path / "tree" / "JPEGImages").iterdir())) == 2
    assert len(list((tmp_path / "tree" / "SegmentationClass").iterdir())) == 1


def test_pixels_that_are_not_square_are_told_or_made_so(tmp_path, capsys):
    attributes = {"WindowCenter": 40, "WindowWidth": 400, "BurnedInAnnotation": "YES"}
    write_series(tmp_path / "source", np.zeros((2, 6, 5), np.int16), spacing=(3.0, 1.5), **attributes)
    main([str(tmp_path / "source"), str(tmp_path / "flat"), "--images-only"])
    out = capsys.readouterr().out
    assert "2 pictures look squeezed, such as p0001_s01_0001: their pixels are not square." in out
    assert "2 pictures have annotation burned in, such as p0001_s01_0001" in out
    main([str(tmp_path / "source"), str(tmp_path / "square"), "--images-only", "--square-pixels"])
    assert "squeezed" not in capsys.readouterr().out
    assert picture(tmp_path / "flat", "p0001_s01_0001", ".jpg").shape == (6, 5)
    assert picture(tmp_path / "square", "p0001_s01_0001", ".jpg").shape == (12, 5)
    assert rows_of(tmp_path / "square" / "images.csv")["p0001_s01_0001"]["row_spacing"] == "1.5"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Name the classes with --class-names.* Found: no SEG and no RTSTRUCT"),
        (["--images-only", "--class-names", "a"], "--images-only writes no masks"),
        (["--images-only", "--window", "lungs"], "there is no window 'lungs'.*The nearest name is 'lung'"),
        (["--images-only", "--window", "center=1,width=x"], "The window 'center=1,width=x' is not understood"),
        (["--images-only", "--window", "center=1"], "The window 'center=1' is not understood"),
        (["--images-only", "--window", "lung", "bone"], "2 are given"),
        (["--images-only", "--fallback", "percentiles=5"], "The window 'percentiles=5' is not understood"),
        (["--images-only", "--link", "{tree}/link.csv"], "which is made to be passed on"),
        (["--images-only", "--link", "{source}/slice_000.dcm"], "exists. Give another file"),
        (["--images-only", "--workers", "-1"], "--workers and --seed are 0 or more"),
        (["--images-only", "--split", "1", "1", "1"], "three shares that sum to 1"),
        (["--images-only", "--table", "gone.csv"], "There is no file gone.csv"),
        (["--class-names", "a", "b", "--label-pattern", "{{stem}}.nii"], "None of the 1 series below .* has a label"),
        (["--class-names", "a", "b", "--label-names", "gone.json"], "gone.json cannot be read as JSON"),
    ],
)
def test_refused_options(tmp_path, options, message):
    write_series(tmp_path / "source", np.zeros((2, 6, 5), np.int16), WindowCenter=40, WindowWidth=400)
    places = {"tree": tmp_path / "tree", "source": tmp_path / "source"}
    with pytest.raises(PyrasegError, match=message):
        main([str(places["source"]), str(places["tree"]), *(option.format(**places) for option in options)])
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_that_is_taken_is_left_alone(tmp_path):
    write_series(tmp_path / "source", np.zeros((2, 6, 5), np.int16), WindowCenter=40, WindowWidth=400)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mine.txt").touch()
    with pytest.raises(PyrasegError, match="tree exists and is not empty"):
        main([str(tmp_path / "source"), str(tmp_path / "tree"), "--images-only"])
    with pytest.raises(PyrasegError, match="gone does not exist"):
        main([str(tmp_path / "gone"), str(tmp_path / "new"), "--images-only"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "tree"]

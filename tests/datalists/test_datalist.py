# SPDX-License-Identifier: Apache-2.0
"""Which cases a data set has, how they are split, and what is refused."""

import json
from pathlib import Path

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.datalist import SPLITS, case_names, load_cases, split_hash


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_list(folder: Path, **splits: object) -> None:
    (folder / "datalist.json").write_text(json.dumps(splits))


def item(case: str, **more: str) -> dict[str, str]:
    return {"image": f"{case}/ct", "label": f"{case}/seg.dcm", **more}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Return a folder of 20 images with labels of another suffix."""
    touch(tmp_path, *(f"images/case_{n:02}.nii.gz" for n in range(20)), *(f"labels/case_{n:02}.nii" for n in range(20)))
    return tmp_path


# --- a Decathlon list ---


def test_list_gives_absolute_paths_and_patients(tmp_path):
    touch(tmp_path, *(f"{case}/{file}" for case in "abc" for file in ("ct/1.dcm", "seg.dcm")))
    write_list(tmp_path, training=[item("a", patient="p1"), item("b", patient="p1", age="7")], test=[item("c")])
    cases = load_cases(tmp_path)
    root = tmp_path.resolve()
    assert cases == {
        "training": [
            {"image": f"{root}/a/ct", "label": f"{root}/a/seg.dcm", "patient": "p1"},
            {"image": f"{root}/b/ct", "label": f"{root}/b/seg.dcm", "patient": "p1", "age": "7"},
        ],
        "validation": [],
        "test": [{"image": f"{root}/c/ct", "label": f"{root}/c/seg.dcm", "patient": "c/ct", "patient_known": False}],
    }


def test_a_label_may_be_a_mask_for_each_class(tmp_path):
    touch(tmp_path, "a.png", "masks/a.png", "masks/b.png")
    label = {"liver": "masks/a.png", "lesion": "masks/b.png"}
    write_list(tmp_path, training=[{"image": "a.png", "label": label}])
    (case,) = load_cases(tmp_path)["training"]
    root = tmp_path.resolve()
    assert case["label"] == {"liver": f"{root}/masks/a.png", "lesion": f"{root}/masks/b.png"}
    write_list(tmp_path, training=[{"image": "a.png", "label": {**label, "spleen": "masks/gone.png"}}])
    with pytest.raises(PyrasegError, match=r"1 of the paths in .*masks/gone\.png"):
        load_cases(tmp_path)


def test_list_of_the_phantom_study(phantom_study):
    cases = load_cases(phantom_study)
    assert [len(cases[split]) for split in SPLITS] == [14, 5, 5]
    assert len({case["patient"] for split in SPLITS for case in cases[split]}) == 24


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"datalist.json is not valid JSON: "),
        ("[]", "datalist.json has no cases under 'training'"),
        ('{"train": []}', "datalist.json has no cases under 'training'"),
        ('{"training": [{"image": "a/ct"}]}', "lacks the path 'image' or 'label': .*a/ct"),
        ('{"training": ["a/ct"]}', "lacks the path 'image' or 'label': .*a/ct"),
        ('{"training": [{"image": 7, "label": "a/ct"}]}', "lacks the path 'image' or 'label'"),
        ('{"training": [{"image": "a/ct", "label": {}}]}', "lacks the path 'image' or 'label'"),
        ('{"training": [{"image": "a/ct", "label": {"liver": 7}}]}', "lacks the path 'image' or 'label'"),
        ('{"training": {"image": "a/ct", "label": "a/ct"}}', "has under 'training' no list of cases"),
        ('{"training": [{"image": "a/ct", "label": "a/none"}]}', r"1 of the paths in .*a/none"),
    ],
)
def test_refused_lists(tmp_path, content, message):
    touch(tmp_path, "a/ct")
    (tmp_path / "datalist.json").write_text(content)
    with pytest.raises(PyrasegError, match=message):
        load_cases(tmp_path)


@pytest.mark.parametrize("splits", [("training", "validation"), ("training", "test"), ("validation", "test")])
def test_a_patient_in_two_parts_of_the_split_is_refused(tmp_path, splits):
    touch(tmp_path, *(f"{case}/{file}" for case in "abc" for file in ("ct/1.dcm", "seg.dcm")))
    first, second = splits
    parts = {"training": [item("c", patient="other")]}
    parts[first] = [item("a", patient="Secret^Name")]
    parts[second] = [item("b", patient="Secret^Name")]
    write_list(tmp_path, **parts)
    with pytest.raises(PyrasegError, match=f"1 patients? .* in {first} and in {second}") as refusal:
        load_cases(tmp_path)
    assert "Secret" not in str(refusal.value)  # messages go into logs


# --- pairs by name ---


def test_pairs_by_name_whatever_the_suffix(pairs):
    cases = load_cases(pairs)
    assert [len(cases[split]) for split in SPLITS] == [14, 3, 3]
    everything = [case for split in SPLITS for case in cases[split]]
    assert sorted(case["patient"] for case in everything) == [f"case_{n:02}" for n in range(20)]
    root = pairs.resolve()
    for case in everything:
        assert case["image"] == f"{root}/images/{case['patient']}.nii.gz"
        assert case["label"] == f"{root}/labels/{case['patient']}.nii"


def test_pairs_by_pattern_with_a_suffix(tmp_path):
    touch(tmp_path, "images/ISIC_1.jpg", "images/ISIC_2.jpg", "images/ISIC_2_superpixels.png")
    touch(tmp_path, "masks/ISIC_1_segmentation.png", "masks/ISIC_2_segmentation.png")
    cases = load_cases(
        tmp_path,
        image_pattern="images/{case}.jpg",
        label_pattern="masks/{case}_segmentation.png",
        split_shares=(1, 0, 0),
    )
    names = [(Path(case["image"]).name, Path(case["label"]).name) for case in cases["training"]]
    assert names == [("ISIC_1.jpg", "ISIC_1_segmentation.png"), ("ISIC_2.jpg", "ISIC_2_segmentation.png")]


def test_pairs_of_folders(tmp_path):
    touch(tmp_path, "a/ct/1.dcm", "a/seg.dcm", "b/ct/1.dcm", "b/seg.dcm")
    options = {"image_pattern": "{case}/ct", "label_pattern": "{case}/seg.dcm", "split_shares": (1, 0, 0)}
    assert [case["patient"] for case in load_cases(tmp_path, **options)["training"]] == ["a", "b"]


def test_dots_in_names_are_no_suffixes(tmp_path):
    touch(tmp_path, "images/1.2.840.1/1.dcm", "images/1.2.840.2/1.dcm")
    touch(tmp_path, "labels/1.2.840.1.nii.gz", "labels/1.2.840.2.nii.gz")
    assert [case["patient"] for case in load_cases(tmp_path, split_shares=(1, 0, 0))["training"]] == [
        "1.2.840.1",
        "1.2.840.2",
    ]


def test_split_depends_on_the_seed_alone(pairs):
    assert load_cases(pairs, seed=3) == load_cases(pairs, seed=3)
    assert load_cases(pairs, seed=3) != load_cases(pairs, seed=4)


def test_split_shares(pairs):
    cases = load_cases(pairs, split_shares=(0.5, 0.25, 0.25))
    assert [len(cases[split]) for split in SPLITS] == [10, 5, 5]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.4, 0.2), (1.2, -0.1, -0.1)])
def test_refused_shares(pairs, shares):
    with pytest.raises(PyrasegError, match="split_shares must be three shares that sum to 1"):
        load_cases(pairs, split_shares=shares)


def test_files_without_a_partner_are_told(pairs, caplog):
    touch(pairs, "images/lonely.png")
    cases = load_cases(pairs)
    assert sum(len(part) for part in cases.values()) == 20
    assert "1 files" in caplog.text and "lonely" in caplog.text


def test_two_files_for_one_case_are_refused(pairs):
    touch(pairs, "images/case_03.png")
    with pytest.raises(PyrasegError, match=r"for the case case_03: case_03.nii.gz and case_03.png"):
        load_cases(pairs)


def test_hidden_files_are_no_cases(pairs):
    touch(pairs, "images/.DS_Store", "labels/.DS_Store", "images/._case_03.nii.gz")
    assert sum(len(part) for part in load_cases(pairs).values()) == 20


def test_images_without_any_label_are_refused(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "labels/c.png")
    with pytest.raises(PyrasegError, match=r"2 images match 'images/{case}', 1 labels match 'labels/{case}'"):
        load_cases(tmp_path)


@pytest.mark.parametrize("pattern", ["images/*.jpg", "{case}/images/{case}.jpg"])
def test_a_pattern_names_the_case_once(pairs, pattern):
    with pytest.raises(PyrasegError, match=r"image_pattern must hold {case} once"):
        load_cases(pairs, image_pattern=pattern)


# --- patients in the names of cases ---


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    """Return a folder of both eyes of ten patients, and one eye of another."""
    names = [f"Image_{n:02}{eye}" for n in range(10) for eye in "LR"] + ["Image_99L"]
    touch(tmp_path, *(f"images/{name}.jpg" for name in names), *(f"labels/{name}.png" for name in names))
    return tmp_path


@pytest.mark.parametrize("seed", range(5))
def test_cases_of_a_patient_stay_together(eyes, seed):
    cases = load_cases(eyes, patient_pattern="^(.+)[LR]$", split_shares=(0.5, 0.25, 0.25), seed=seed)
    patients = {split: {case["patient"] for case in cases[split]} for split in SPLITS}
    assert [len(patients[split]) for split in SPLITS] == [6, 2, 3]  # of 11: up to 5.5 and up to 8.25, rounded
    assert set.union(*patients.values()) == {*(f"Image_{n:02}" for n in range(10)), "Image_99"}
    for split in SPLITS:
        names = sorted(Path(case["image"]).stem for case in cases[split])
        assert names == sorted(f"{p}{eye}" for p in patients[split] for eye in ("L" if p == "Image_99" else "LR"))


def test_without_a_pattern_each_pair_is_a_patient(eyes):
    cases = load_cases(eyes)
    assert len({case["patient"] for split in SPLITS for case in cases[split]}) == 21


def test_a_pattern_that_tells_each_case_apart_changes_no_split(pairs):
    unnamed = {
        split: [{**item, "patient_known": False} for item in items]
        for split, items in load_cases(pairs, patient_pattern="(.*)").items()
    }
    assert load_cases(pairs) == unnamed


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "is no regular expression"),
        ("[LR]$", "has no group"),
        ("^(.+)R$", "finds no patient in the names of 11 cases, such as Image_00L"),
        ("^(X?)", "finds no patient in the names of 21 cases"),
    ],
)
def test_refused_patient_patterns(eyes, pattern, message):
    with pytest.raises(PyrasegError, match=message):
        load_cases(eyes, patient_pattern=pattern)


# --- the log ---


def test_the_split_is_logged_with_its_hash(pairs, caplog):
    with caplog.at_level("INFO"):
        cases = load_cases(pairs)
        load_cases(pairs, patient_pattern="(.*)")
    parts = f"14 training, 3 validation, 3 test; split {split_hash(cases)}"
    assert f"Cases (no patients are named): {parts}" in caplog.text
    assert f"Cases of 20 patients: {parts}" in caplog.text


# --- names of cases ---


@pytest.mark.parametrize(
    ("images", "folder", "names"),
    [
        (["/data/a/ct", "/data/b.nii"], "/data", ["a/ct", "b.nii"]),
        (["/data/images/a.jpg"], "/data", ["images/a.jpg"]),
        (["/data/a/ct", "/data/b/ct"], "/lists/fold_0", ["a/ct", "b/ct"]),
        (["/lists/a/ct", "/data/a/ct"], "/lists", ["lists/a/ct", "data/a/ct"]),
        (["/data/a/ct"], "/lists", ["ct"]),
    ],
)
def test_cases_are_named_below_their_folder_wherever_the_list_lies(images, folder, names):
    assert case_names([{"image": image} for image in images], folder) == names


# --- the folder ---


def test_an_absent_folder_is_refused_and_not_made(tmp_path):
    with pytest.raises(
        PyrasegError, match=r"none does not exist\. Give .* --dataset_dir, .*pyraseg download.*draw-photographs"
    ):
        load_cases(tmp_path / "none")
    assert not any(tmp_path.iterdir())


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(PyrasegError, match=r"is empty\. Put images and labels there\. Give .* --dataset_dir"):
        load_cases(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_file_is_no_folder(tmp_path):
    touch(tmp_path, "data.zip")
    with pytest.raises(PyrasegError, match=r"data.zip is a file"):
        load_cases(tmp_path / "data.zip")


# --- annotated classes ---


def annotated_list(folder: Path, annotated: object) -> None:
    for name in ("image", "label"):
        (folder / f"{name}.png").touch()
    case = {"image": "image.png", "label": "label.png", "annotated": annotated}
    (folder / "datalist.json").write_text(json.dumps({"training": [case]}))


def test_an_item_may_say_which_classes_were_annotated(tmp_path, caplog):
    annotated_list(tmp_path, ["liver"])
    with caplog.at_level("INFO"):
        (case,) = load_cases(tmp_path, class_names=["background", "liver", "spleen"])["training"]
    assert case["annotated"] == ["liver"]
    assert "1 of them annotated for some classes only" in caplog.text


@pytest.mark.parametrize(
    ("annotated", "message"),
    [("liver", "as a list"), ([], "as a list"), (["livr"], r"image\.png has 'livr' .* nearest name is 'liver'")],
)
def test_refused_annotations(tmp_path, annotated, message):
    annotated_list(tmp_path, annotated)
    with pytest.raises(PyrasegError, match=message):
        load_cases(tmp_path, class_names=["background", "liver", "spleen"])


def test_all_classes_named_are_no_part_of_them(tmp_path, caplog):
    annotated_list(tmp_path, ["spleen", "liver"])
    with caplog.at_level("INFO"):
        load_cases(tmp_path, class_names=["background", "liver", "spleen"])
    assert "some classes only" not in caplog.text

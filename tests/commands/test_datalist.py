# SPDX-License-Identifier: Apache-2.0
"""The programs that make and check data lists, as a user runs them."""

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.commands import check, datalist
from bundle.pyraseg.core.errors import DiskError, PyrasegError
from bundle.pyraseg.datalists.collecting import collect_cases
from bundle.pyraseg.datalists.datalist import load_cases
from bundle.pyraseg.datalists.making import check_request, write_split
from bundle.pyraseg.datalists.splitting import SPLITS
from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.textures import texture
from tests.helpers.warm import python

ROOT = Path(__file__).resolve().parents[2]
#: Images of three patients with many and twelve with few; class 2 is in a third of the labels.
CASES = [f"p{patient:02}_{n}" for patient in range(15) for n in range(5 if patient < 3 else 2)]


def write_set(folder: Path, cases: list[str] = CASES) -> None:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number, case in enumerate(cases):
        Image.fromarray(texture(number)).save(folder / "images" / f"{case}.png")
        label = np.zeros((120, 160), np.uint8)
        label[:5], label[5:9] = 1, 2 * (int(case[1:3]) % 3 == 0)
        Image.fromarray(label).save(folder / "labels" / f"{case}.png")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_set(tmp_path / "set")
    return tmp_path / "set"


PATTERN = ["--patient-pattern", "^(p..)_"]


def names(cases: list[dict[str, str]]) -> list[str]:
    return [Path(item["image"]).stem for item in cases]


# --- the list ---


def test_a_training_reads_what_is_written(dataset, capsys):
    datalist.main([str(dataset), *PATTERN])
    out = capsys.readouterr().out
    cases = load_cases(dataset)
    assert sorted(name for part in SPLITS for name in names(cases[part])) == sorted(CASES)
    patients = {part: {name[:3] for name in names(cases[part])} for part in SPLITS}
    assert sum(map(len, patients.values())) == 15
    assert {item["patient"] for part in SPLITS for item in cases[part]} == {f"p{n:04d}" for n in range(1, 16)}
    rows = {line.split()[0]: [int(n) for n in line.split()[1:]] for line in out.splitlines() if line.startswith(SPLITS)}
    for part in SPLITS:
        with_two = sum(int(name[1:3]) % 3 == 0 for name in names(cases[part]))
        count = len(cases[part])
        assert rows[part] == [count, len(patients[part]), count, with_two, 0]
        assert with_two > 0
    assert (dataset / "summary.txt").read_text() in out
    assert f"Written to {dataset}: datalist.json, manifest.json, summary.txt" in out


def test_the_manifest_has_the_hash_of_every_file(dataset):
    datalist.main([str(dataset), *PATTERN])
    files = json.loads((dataset / "manifest.json").read_text())["files"]
    assert len(files) == 2 * len(CASES)
    for name, value in files.items():
        assert hashlib.sha256((dataset / name).read_bytes()).hexdigest() == value


def test_the_same_seed_gives_the_same_bytes(dataset, tmp_path):
    written = []
    for seed in ("0", "0", "1"):
        datalist.main([str(dataset), *PATTERN, "--seed", seed, "--overwrite"])
        written.append((dataset / "datalist.json").read_bytes())
    assert written[0] == written[1] != written[2]


def test_elsewhere_than_the_images(dataset, tmp_path):
    datalist.main([str(dataset), *PATTERN, "--output-dir", str(tmp_path / "lists" / "a")])
    cases = load_cases(tmp_path / "lists" / "a")
    assert {Path(item["image"]).parent for part in SPLITS for item in cases[part]} == {dataset / "images"}
    assert not (dataset / "datalist.json").exists()


def test_shares(dataset):
    datalist.main([str(dataset), *PATTERN, "--shares", "0.5", "0.25", "0.25"])
    counts = [len(load_cases(dataset)[part]) for part in SPLITS]
    np.testing.assert_allclose(np.array(counts) / len(CASES), (0.5, 0.25, 0.25), atol=0.06)


def test_folds(dataset, tmp_path, capsys):
    datalist.main([str(dataset), *PATTERN, "--folds", "4", "--output-dir", str(tmp_path / "lists")])
    folds = [load_cases(tmp_path / "lists" / f"fold_{fold}") for fold in range(4)]
    tested = Counter(name for cases in folds for name in names(cases["test"]))
    assert tested == dict.fromkeys(CASES, 1)
    for fold, cases in enumerate(folds):
        assert names(cases["validation"]) == names(folds[(fold + 1) % 4]["test"])
        assert len({name for part in SPLITS for name in names(cases[part])}) == len(CASES)
    assert "fold_0 to fold_3, each with a datalist.json, manifest.json" in capsys.readouterr().out


def test_whom_the_numbers_stand_for_is_in_a_file_of_its_own(dataset, tmp_path):
    datalist.main([str(dataset), *PATTERN, "--link", str(tmp_path / "secret" / "link.csv")])
    rows = list(csv.DictReader((tmp_path / "secret" / "link.csv").open()))
    assert len({(row["patient"], row["source"]) for row in rows}) == 15
    assert {row["source"] for row in rows} == {f"p{n:02}" for n in range(15)}


def test_a_table_of_patients(dataset, tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"{case},Name^{case[:3]}\n" for case in CASES))
    datalist.main([str(dataset), "--patient-csv", str(table)])
    assert len({item["patient"] for cases in load_cases(dataset).values() for item in cases}) == 15
    assert "Name^" not in "".join(path.read_text() for path in dataset.glob("*.*"))


def test_dicom_studies_and_their_segmentations(tmp_path):
    write_phantom_study(tmp_path / "study", patients=9, size=48)
    (tmp_path / "study" / "datalist.json").unlink()
    datalist.main([str(tmp_path / "study"), "--overwrite"])
    content = (tmp_path / "study" / "datalist.json").read_text()
    cases = load_cases(tmp_path / "study")
    found = {Path(item["label"]): Path(item["image"]) for part in SPLITS for item in cases[part]}
    assert set(found) == set((tmp_path / "study").glob("*/seg.dcm"))
    assert all(label.parent / "ct" in (image, image.parent) for label, image in found.items())
    assert len(found) >= 3 and "phantom" not in content
    classes = (tmp_path / "study" / "summary.txt").read_text()
    assert all(f"with {name}" in classes for name in ("liver", "spleen"))


# --- leaks ---


def copy(dataset: Path, case: str, name: str, change: str) -> None:
    """Plant a copy of a case under another patient's name."""
    image = Image.open(dataset / "images" / f"{case}.png")
    target = dataset / "images" / f"{name}.png"
    if change == "re-encoded":
        image.save(target.with_suffix(".jpg"), quality=40)
    elif change == "shifted":
        Image.fromarray(np.roll(np.asarray(image), 1, 1)).save(target)
    else:
        image.save(target, compress_level=1)
    Image.open(dataset / "labels" / f"{case}.png").save(dataset / "labels" / f"{name}.png")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("same", "the same pixels"),
        pytest.param("re-encoded", "nearly the same", marks=pytest.mark.slow),
        pytest.param("shifted", "nearly the same", marks=pytest.mark.slow),
    ],
)
def test_a_planted_copy_stops_the_split(dataset, change, what, capsys):
    copy(dataset, "p04_0", "p20_0", change)
    refused = 0
    for seed in range(8):
        try:
            datalist.main([str(dataset), *PATTERN, "--seed", str(seed), "--overwrite"])
        except PyrasegError as refusal:
            refused += 1
            assert "p04_0.png" in str(refusal) and "p20_0" in str(refusal) and what in str(refusal)
        else:  # by chance both are in one part: no leak, but told
            assert what in capsys.readouterr().out
            part = [part for part, cases in load_cases(dataset).items() if {"p04_0", "p20_0"} & {*names(cases)}]
            assert len(part) == 1
    assert 0 < refused < 8


def test_joined_they_are_one_patient(dataset):
    copy(dataset, "p04_0", "p20_0", "shifted")
    for seed in range(4):
        datalist.main([str(dataset), *PATTERN, "--merge-duplicates", "--seed", str(seed), "--overwrite"])
        cases = load_cases(dataset)
        patients = {i["patient"] for p in SPLITS for i in cases[p] if Path(i["image"]).stem[:3] in ("p04", "p20")}
        assert len(patients) == 1


def test_where_nobody_is_known_copies_are_one_patient(dataset, capsys):
    copy(dataset, "p04_0", "p20_0", "re-encoded")
    datalist.main([str(dataset)])
    patients = [item["patient"] for cases in load_cases(dataset).values() for item in cases]
    assert len(patients) - len(set(patients)) == 1
    assert "each case is a patient of its own, joined where images are the same" in capsys.readouterr().out


def test_copies_that_leave_too_few_patients_are_named(tmp_path):
    folder = tmp_path / "alike"
    write_set(folder, ["p00"])
    for name in ("p01", "p02", "p03"):
        copy(folder, "p00", name, "same")
    with pytest.raises(PyrasegError, match="1 patients cannot be split into 3 parts") as refused:
        datalist.main([str(folder)])
    assert "6 pairs of images are the same or nearly so" in str(refused.value)
    assert all(f"images/p0{n}.png" in str(refused.value) for n in range(4))


def move_to_test(dataset: Path, case: str) -> None:
    """Move a case from training to test by hand, under a patient of its own."""
    content = json.loads((dataset / "datalist.json").read_text())
    (item,) = [item for item in content["training"] if Path(item["image"]).stem == case]
    content["training"].remove(item)
    content["test"].append(item)
    (dataset / "datalist.json").write_text(json.dumps(content))


def test_a_check_finds_a_planted_copy_and_a_planted_patient(dataset, capsys):
    datalist.main([str(dataset), *PATTERN])
    check.main([str(dataset)])
    assert "No leak in" in capsys.readouterr().out
    training = next(name for name in names(load_cases(dataset)["training"]) if name.endswith("_0"))
    copy(dataset, training, "p99_0", "re-encoded")
    content = json.loads((dataset / "datalist.json").read_text())
    content["test"].append({"image": "images/p99_0.jpg", "label": "labels/p99_0.png", "patient": "p0099"})
    (dataset / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(PyrasegError, match=rf"{training}.png \(training\) and images/p99_0.jpg \(test\)"):
        check.main([str(dataset)])
    move_to_test(dataset, training)
    with pytest.raises(PyrasegError, match=r"1 patients .* are in training and in test"):
        check.main([str(dataset)])


def test_a_check_finds_changed_files(dataset):
    datalist.main([str(dataset), *PATTERN])
    (dataset / "labels" / f"{CASES[0]}.png").write_bytes((dataset / "labels" / f"{CASES[1]}.png").read_bytes() + b" ")
    with pytest.raises(PyrasegError, match=rf"1 files differ from .*\n  labels/{CASES[0]}.png has changed"):
        check.main([str(dataset)])


def test_a_check_of_pairs_without_a_list(dataset, capsys):
    check.main([str(dataset), *PATTERN])
    assert "none in two parts; no manifest" in capsys.readouterr().out


# --- refusals ---


@pytest.mark.slow
def test_nothing_is_written_when_the_split_leaks(dataset, tmp_path):
    copy(dataset, "p04_0", "p20_0", "same")
    command = [str(dataset), *PATTERN, "--output-dir", str(tmp_path / "out")]
    data = collect_cases(dataset, patient_pattern=PATTERN[1], threshold=0.8)
    for seed in range(20):
        try:
            write_split(data, dataset, tmp_path / "elsewhere", shares=(0.7, 0.15, 0.15), seed=seed, overwrite=True)
        except PyrasegError:
            break
    result = python("-m", "scripts.make_datalist", *command, "--seed", str(seed), cwd=ROOT)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr and "pyraseg: 1 pairs of images" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_list_that_is_there_is_kept(dataset):
    (dataset / "datalist.json").write_text("mine")
    with pytest.raises(PyrasegError, match=r"datalist.json exists. Give --overwrite"):
        datalist.main([str(dataset), *PATTERN])
    assert (dataset / "datalist.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shares", "0.5", "0.5", "0.5"], "must be three shares that sum to 1"),
        (["--folds", "2"], "2 folds leave no training part"),
        (["--folds", "16", *PATTERN], "15 patients cannot be split into 16 parts"),
        (["--seed", "-1"], "integer of at least 0"),
        (["--link", "."], "Give a file for --link"),
        (["--output-dir", __file__], "is a file, not a folder"),
        (["--patient-pattern", "(x)"], "finds no patient"),
        (["--image-pattern", "images/{case}.png"], "belong together"),
    ],
)
def test_refused_options(dataset, options, message):
    with pytest.raises(PyrasegError, match=message):
        datalist.main([str(dataset), *options])
    assert not (dataset / "datalist.json").exists()


def test_a_blurred_mask_needs_a_threshold(dataset):
    for path in (dataset / "labels").iterdir():
        Image.fromarray(texture(1).astype(np.float32) / 255).save(path.with_suffix(".tiff"))
        path.unlink()
    with pytest.raises(PyrasegError, match=r"which are no classes. Give a threshold"):
        datalist.main([str(dataset), *PATTERN])
    datalist.main([str(dataset), *PATTERN, "--label-threshold", "0.5"])


# --- annotated classes ---


def test_a_table_says_which_classes_were_annotated(dataset, capsys):
    table = dataset.parent / "annotated.csv"
    table.write_text('case,classes\np00_0,"liver; spleen"\np00_1,liver\np01_0,"spleen, liver"\n')
    datalist.main([str(dataset), *PATTERN, "--annotated-csv", str(table)])
    out = capsys.readouterr().out
    cases = load_cases(dataset)
    told = {Path(item["image"]).stem: item.get("annotated") for part in SPLITS for item in cases[part]}
    expected = {"p00_0": ["liver", "spleen"], "p00_1": ["liver"], "p01_0": ["spleen", "liver"]}
    assert {name: classes for name, classes in told.items() if classes} == expected and set(told) == set(CASES)
    assert f"3 of {len(CASES)} cases were annotated for some classes only" in out
    counts = {line.split()[0]: line.split()[1:] for line in out[out.index("classes only") :].splitlines() if line}
    assert counts["part"] == ["all", "liver", "spleen"]
    for part in SPLITS:
        inside = [expected.get(name) for name in names(cases[part])]
        assert counts[part] == [
            str(inside.count(None)),
            *(str(sum(of is None or kind in of for of in inside)) for kind in ("liver", "spleen")),
        ]


def test_a_table_may_name_patients_and_folds_keep_it(dataset, tmp_path):
    (tmp_path / "annotated.csv").write_text("patient,classes\np02,liver\n")
    options = ["--annotated-csv", str(tmp_path / "annotated.csv"), "--folds", "3", "--output-dir", str(tmp_path / "o")]
    datalist.main([str(dataset), *PATTERN, *options])
    for fold in range(3):
        cases = load_cases(tmp_path / "o" / f"fold_{fold}")
        told = {Path(item["image"]).stem: item.get("annotated") for part in SPLITS for item in cases[part]}
        assert {name for name, classes in told.items() if classes == ["liver"]} == {c for c in CASES if c[:3] == "p02"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,classes\np00_00,liver\n", "Line 2 of .* 'p00_00', which is no case. The nearest name is 'p00_0'"),
        ("case,classes\np00_0, ;\n", "Line 2 of .* names no class"),
        ("case,classes\np00_0,liver\np00_0,spleen\n", "Line 3 of .* says otherwise"),
        ("image,classes\np00_0,liver\n", "neither case nor patient"),
        ("case,patient,classes\np00_0,p00,liver\n", "both case and patient"),
        ("case,class\np00_0,liver\n", "lacks classes"),
        ("patient,classes\nDOE,liver\n", "Line 2 of .* names no known patient"),
    ],
)
def test_refused_tables_of_annotations(dataset, text, message):
    table = dataset.parent / "annotated.csv"
    table.write_text(text)
    with pytest.raises(PyrasegError, match=message) as caught:
        datalist.main([str(dataset), *PATTERN, "--annotated-csv", str(table)])
    assert "DOE" not in str(caught.value)
    assert not (dataset / "datalist.json").exists()


def test_a_table_of_patients_needs_patients(dataset):
    (dataset.parent / "annotated.csv").write_text("patient,classes\np00,liver\n")
    with pytest.raises(PyrasegError, match="nothing tells whose the cases are"):
        datalist.main([str(dataset), "--annotated-csv", str(dataset.parent / "annotated.csv")])


def test_a_read_only_folder_is_told_before_anything_is_read():
    with pytest.raises(DiskError, match=r"Nothing can be written to /proc.*by --output-dir"):  # nor by root
        check_request(Path("/proc/self"), seed=0)

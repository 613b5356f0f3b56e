# SPDX-License-Identifier: Apache-2.0
"""A data list says of one case which series is meant, which slices of it, and what its label must share with it."""

import json

import numpy as np
import pydicom
import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.data.slice_cache import SliceCache, state_of_files
from bundle.pyraseg.datalists.collecting import collect_cases
from bundle.pyraseg.datalists.datalist import case_names, load_cases, split_hash
from bundle.pyraseg.datalists.duplicates import find_duplicates
from bundle.pyraseg.datalists.making import write_split
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from bundle.pyraseg.workflow.config import read_config
from tests.helpers.configs import CONFIGS
from tests.helpers.dicom_files import PATIENT, uid, write_series

RANDOM = np.random.default_rng(3)
#: Values of two echoes of two phases, and what was drawn on the first one.
VALUES = RANDOM.integers(0, 999, (2, 2, 3, 8, 9)).astype(np.int16)
MASK = RANDOM.integers(0, 2, (3, 8, 9)).astype(np.uint8)


def write_patient(root, number):
    """Write two phases of two echoes each into one folder, and a SEG of the arterial one beside them."""
    for phase, name in enumerate(("Arterial", "Portal")):
        own = {
            "SeriesInstanceUID": uid(number, name), "FrameOfReferenceUID": uid(number), "PatientID": f"P{number}",
            "StudyInstanceUID": uid(number, "study"), "Modality": "CT", "SliceThickness": 1,
        }  # fmt: skip
        files = write_series(
            root / str(number), (VALUES[phase] + 1000 * number).reshape(6, 8, 9),
            names=[f"{name}{k}.dcm" for k in range(6)],
            per_slice=lambda k: {"EchoTime": 1 + k // 3, "ImagePositionPatient": [0, 0, k % 3], "InstanceNumber": k},
            **{**PATIENT, **own, "SeriesNumber": 4 + phase, "SeriesDescription": name},
        )  # fmt: skip
        if phase == 0:
            sources = [pydicom.dcmread(file) for file in files[:3]]
            write_segmentation(root / "seg" / f"{number}.dcm", MASK, sources, [SegmentClass.organ("liver")])


@pytest.fixture
def study(tmp_path):
    write_patient(tmp_path, 0)
    return tmp_path


def listed(folder, **options):
    item = {"image": "0", "label": "seg/0.dcm", "patient": "p0001", **options}
    (folder / "datalist.json").write_text(json.dumps({"training": [item]}))
    return folder


def loading(**options):
    """Return the transforms of the config of training that load image and label."""
    config = read_config([CONFIGS / "train.json"], {"class_names": ["background", "liver"], **options})
    steps = ConfigParser({**config.get(), "load": config["train#preprocessing#transforms"][:2]})
    return Compose([steps.get_parsed_content(f"load#{step}") for step in range(2)])


PORTAL = {"series": "portal", "select": "EchoTime=2", "drawn_on": "frame_of_reference"}


@pytest.mark.parametrize("series", ["portal", 5, "po?tal*", uid(0, "Portal")])
@pytest.mark.parametrize("select", ["EchoTime=2", {"EchoTime": 2}])
def test_one_case_alone(study, series, select):
    (case,) = load_cases(listed(study, **{**PORTAL, "series": series, "select": select}))["training"]
    loaded = loading()(dict(case))
    np.testing.assert_array_equal(loaded["image"][0], VALUES[1, 1].T)
    np.testing.assert_array_equal(loaded["label"][0], MASK.T)


def test_several_values_of_one_case_are_a_list_or_as_dicom_writes_them(study):
    for file in (study / "0").glob("Portal*"):
        dataset = pydicom.dcmread(file)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "MP"[int(dataset.EchoTime) - 1]]
        dataset.save_as(file)
    for select in ({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, r"ImageType=ORIGINAL\PRIMARY\P"):
        (case,) = load_cases(listed(study, **{**PORTAL, "select": select}))["training"]
        np.testing.assert_array_equal(loading()(dict(case))["image"][0], VALUES[1, 1].T)


def test_of_all_cases_and_of_one_the_one_counts(study):
    everything = loading(series="5", select="EchoTime=1", drawn_on="frame_of_reference")
    (plain,) = load_cases(listed(study))["training"]
    np.testing.assert_array_equal(everything(dict(plain))["image"][0], VALUES[1, 0].T)
    (case,) = load_cases(listed(study, series="arterial"))["training"]
    np.testing.assert_array_equal(everything(dict(case))["image"][0], VALUES[0, 0].T)
    with pytest.raises(Exception, match="applying transform") as caught:  # the label is the arterial phase's
        loading(series="5", select="EchoTime=1")(dict(plain))
    assert "--drawn_on frame_of_reference" in str(caught.value.__cause__)


def test_the_cache_and_the_records_tell_cases_of_one_path_apart(study):
    cases = [load_cases(listed(study, **{**PORTAL, "select": f"EchoTime={echo}"}))["training"][0] for echo in (1, 2)]
    cache = SliceCache(study / "cache", loading())
    for echo, case in enumerate(cases):
        image, label = SliceCache.read(cache.write(case), 1)
        np.testing.assert_array_equal(image[0], VALUES[1, echo, 1].T)
        np.testing.assert_array_equal(label[0], MASK[1].T)
    assert state_of_files(cases[0]) != state_of_files(cases[1])
    names = case_names(cases, study)
    assert names == ["0 [portal; EchoTime=1]", "0 [portal; EchoTime=2]"]
    assert split_hash({"training": cases[:1]}) != split_hash({"training": cases[1:]})
    assert find_duplicates([case["image"] for case in cases], threshold=0.99) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "EchoTim=2"}, "The nearest name is 'EchoTime'"),
        ({"select": "EchoTime"}, "Write KEYWORD=VALUE"),
        ({"drawn_on": "study"}, "'study' under 'drawn_on'; it can be series or frame_of_reference"),
        ({"series": "5", "image": "seg/x.nii.gz"}, "'series', which is for DICOM"),
    ],
)
def test_what_a_case_cannot_say(study, options, message):
    (study / "seg" / "x.nii.gz").touch()
    with pytest.raises(PyrasegError, match=message.replace("(", r"\(")):
        load_cases(listed(study, **options))


def test_a_list_that_is_made_says_it(tmp_path):
    for number in range(6):
        write_patient(tmp_path, number)
    options = {"series": "portal", "select": "EchoTime=2", "drawn_on": "frame_of_reference"}
    data = collect_cases(tmp_path, threshold=1, **options)
    write_split(data, tmp_path, tmp_path / "list", shares=(0.5, 0.25, 0.25), seed=0)
    written = json.loads((tmp_path / "list" / "datalist.json").read_text())
    items = [item for part in ("training", "validation", "test") for item in written[part]]
    assert {item["series"] for item in items} == {uid(number, "Portal") for number in range(6)}
    assert {(item["select"], item["drawn_on"]) for item in items} == {("EchoTime=2", "frame_of_reference")}
    cases = load_cases(tmp_path / "list")
    for case in cases["training"]:
        number = int(case["image"].rpartition("/")[2])
        loaded = loading()(dict(case))
        np.testing.assert_array_equal(loaded["image"][0], VALUES[1, 1].T + 1000 * number)

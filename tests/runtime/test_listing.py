# SPDX-License-Identifier: Apache-2.0
"""A folder is listed: every series, what can be chosen in it, what is left out and why; and series are chosen."""

import json
import logging
import shlex

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from bundle.pyraseg.commands.list_series import main
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.runtime.find import find_inputs
from bundle.pyraseg.runtime.listing import list_inputs
from tests.helpers.dicom_files import uid, write_image, write_series

STACK = np.random.default_rng(0).integers(-1000, 1000, (5, 32, 40), dtype=np.int16)


def names(number):
    return [f"s{number}_{k}.dcm" for k in range(len(STACK))]


def echo(k):
    """Return what tells the echoes of ten slices in five places apart."""
    return {"EchoTime": 2.3 if k < 5 else 4.6, "ImagePositionPatient": [0, 0, k % 5]}


@pytest.fixture
def study(tmp_path):
    """Write two phases of a liver as series of one folder, a series of two echoes, a scout, a report and notes."""
    folder = tmp_path / "study"
    common = {"PatientName": "Marked^Patricia", "PatientID": "MARK-77", "BodyPartExamined": "LIVER"}
    for number, phase in ((4, "Arterial"), (5, "Portal  venous 1.5")):
        own = {"SeriesInstanceUID": f"1.2.{number}", "SeriesNumber": number, "SeriesDescription": phase}
        write_series(folder, STACK + number, names=names(number), **common, **own)
    echoes = {"SeriesInstanceUID": "1.2.6", "SeriesNumber": 6, "SeriesDescription": "Dixon of patricia (mark 77)"}
    both = np.concatenate([STACK, STACK + 9])
    write_series(folder / "echoes", both, per_slice=echo, Modality="MR", **common, **echoes)
    write_image(folder / "scout.dcm", STACK[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **common)
    write_image(folder / "dose.dcm", STACK[0], SOPClassUID=SecondaryCaptureImageStorage, **common)
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_every_series_with_what_can_be_chosen_and_what_is_left_out(study, capsys):
    main([str(study), "--json"])
    listed = json.loads(capsys.readouterr().out)
    found = {one["name"]: one for one in listed["series"]}
    assert list(found) == ["echoes", "study_4_Arterial", "study_5_Portal_venous_1.5"]
    portal = found["study_5_Portal_venous_1.5"]
    assert portal.items() >= {
        "uid": "1.2.5", "number": "5", "description": "Portal venous 1.5", "modality": "CT", "body_part": "LIVER",
        "files": names(5), "problem": "",
    }.items()  # fmt: skip
    image = read_series(study, series="1.2.5")
    assert (portal["slices"], portal["rows"], portal["columns"]) == image.pixels.shape
    assert tuple(portal["pixel_spacing"]) == image.geometry.pixel_spacing
    np.testing.assert_allclose(portal["slice_spacing"], [image.geometry.slice_spacing] * 2)
    echoes = found["echoes"]
    assert "They are several echoes" in echoes["problem"]
    for choice in echoes["choices"]:  # each is what it says
        assert len(read_series(study / "echoes", select=choice["select"]).pixels) == choice["slices"] == 5
    assert {reason: [path.rpartition("/")[2] for path in paths] for reason, paths in listed["skipped"].items()} == {
        "localizer": ["scout.dcm"], "screen capture": ["dose.dcm"], "beside the images": ["notes.txt"],
    }  # fmt: skip


def test_the_table_is_for_people_and_names_no_patient(study, capsys):
    main([str(study)])
    told = capsys.readouterr().out
    assert "study_5_Portal_venous_1.5  CT        5       Portal venous 1.5" in told
    assert "40x32x5" in told and "1.2.5" in told
    assert "--select EchoTime=2.3 (5 slices)" in told
    assert "left out: 1 localizer (scout.dcm)" in told
    assert "Dixon of *** (*** ***)" in told
    assert "patricia" not in told.casefold() and "mark" not in told.casefold()


def test_a_choice_is_shown_before_it_is_made(study, capsys):
    main([str(study), "--series", "6", "--select", "EchoTime=4.6", "--json"])
    (one,) = json.loads(capsys.readouterr().out)["series"]
    assert (one["name"], one["slices"], one["problem"], one["choices"]) == ("echoes", 5, "", [])


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ("5", ["1.2.5"]),
        (5, ["1.2.5"]),
        ("005", ["1.2.5"]),
        ("1.2.4", ["1.2.4"]),
        ("portal venous 1.5", ["1.2.5"]),
        ("PORTAL*", ["1.2.5"]),
        ("*al*", ["1.2.4", "1.2.5"]),
        ("arterial; 6", ["1.2.6", "1.2.4"]),
        (["4", "?ixon*"], ["1.2.6", "1.2.4"]),
    ],
)
def test_series_are_chosen_as_people_call_them(study, series, expected):
    found = list_inputs(study, series=series)
    assert [facts.uid for _, facts in found.series] == expected
    assert found.faults == []
    if len(expected) == 1:
        assert read_series(study, series=series).series_uid == expected[0]
    else:
        with pytest.raises(PyrasegError, match=r"holds 2 series that --series .* means"):
            read_series(study, series=series)


@pytest.mark.parametrize("series", ["portal", "1.2", "50", "[ap]*", "venous"])
def test_what_no_series_is_called_is_refused_with_what_there_is(study, series):
    for read in (lambda: read_series(study, series=series), lambda: find_inputs(study, series=series)):
        with pytest.raises(PyrasegError) as caught:
            read()
        message = str(caught.value)
        assert f"--series {shlex.quote(series)}" in message and 'number 5, "Portal venous 1.5"' in message


def test_each_of_several_texts_means_a_series(study):
    with pytest.raises(PyrasegError, match=r"--series 7 means none of the series"):
        find_inputs(study, series="5; 7")
    assert read_series(study, series="5; 7").series_uid == "1.2.5"  # one of several, as each case has its own


def test_the_advice_of_a_folder_with_several_series_is_right(study):
    with pytest.raises(PyrasegError) as caught:
        read_series(study)
    words = shlex.split(str(caught.value).partition("Choose one of them with ")[2].partition(",")[0])
    assert words[0] == "--series"
    assert [facts.uid for _, facts in list_inputs(study, series=words[1]).series] == ["1.2.6"]
    write_series(study / "again", STACK, SeriesInstanceUID="1.2.9", SeriesNumber=6)
    with pytest.raises(PyrasegError, match=r"Choose one of them with --series 1\.2\.9,"):  # two have the number 6 now
        read_series(study)


def test_a_run_logs_the_table(study, caplog):
    with caplog.at_level(logging.INFO, "bundle.pyraseg.runtime.find"):
        find_inputs(study)
    (table,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Series in")]
    assert "Portal venous 1.5" in table and "--select EchoTime=4.6 (5 slices)" in table


def test_names_are_the_same_whatever_is_chosen(study):
    everything = {item["name"] for item in find_inputs(study)}
    for series in ("4", "5", "6"):
        assert {item["name"] for item in find_inputs(study, series=series)} < everything


def test_series_that_are_called_alike_get_numbers(tmp_path):
    for number in (1, 2):
        own = {"SeriesInstanceUID": f"1.2.{number}", "SeriesNumber": 3, "SeriesDescription": "a/b: \\ ü *"}
        write_series(tmp_path / "x", STACK, names=names(number), **own)
    expected = ["x_3_a_b_ü_1", "x_3_a_b_ü_2"]
    assert [item["name"] for item in find_inputs(tmp_path)] == expected
    chosen = [find_inputs(tmp_path, series=f"1.2.{number}") for number in (1, 2)]
    assert [item["name"] for (item,) in chosen] == expected  # lest the results of one replace the other's


def test_a_name_that_an_image_of_another_format_has_is_not_taken_either(tmp_path):
    write_series(tmp_path / "x", STACK, SeriesInstanceUID="1.2.1")
    (tmp_path / "x.nii.gz").touch()
    (series,) = (item for item in find_inputs(tmp_path) if not isinstance(item["image"], str))
    assert find_inputs(tmp_path, series="1.2.1")[0]["name"] == series["name"] != "x"


def test_one_that_cannot_be_read_keeps_no_other_from_being_listed(tmp_path):
    write_series(tmp_path / "fine", STACK, SeriesInstanceUID="1.2.1")
    write_series(tmp_path / "mixed", STACK, SeriesInstanceUID="1.2.2", per_slice=lambda k: {"PixelSpacing": [k + 1, 1]})
    write_series(tmp_path / "odd", STACK, SeriesInstanceUID="1.2.3", ImagePositionPatient=["1", "2"])
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x08\0\x05\0CS" + b"\xff" * 20)
    (tmp_path / "photo.png").touch()
    found = list_inputs(tmp_path)
    problems = {name: facts.problem for name, facts in found.series}
    assert problems["fine"] == ""
    assert "mixes pixel spacings" in problems["mixed"] and "ImagePositionPatient" in problems["odd"]
    assert found.files == [("photo", str(tmp_path / "photo.png"))]
    assert [name for name, _ in found.faults] == ["broken.dcm"]


def two_in_each_place(folder, **changes):
    """Write ten slices in five places, of which nothing but what is given tells two stacks."""
    write_series(folder, np.concatenate([STACK, STACK + 9]), per_slice=lambda k: {
        "ImagePositionPatient": [0, 0, 3 * (k % 5)], **{name: values[k // 5] for name, values in changes.items()},
    })  # fmt: skip


@pytest.mark.parametrize(
    "agents",
    [("OMNI; 350", "none; 0"), ("KVP=1;KVP=2", "a;"), ("#1", "#2"), ("::1", "::2"), (["A", ""], ["B", ""])],
    ids=lambda agents: str(agents[0]),
)
def test_values_that_cannot_be_typed_are_no_choices(tmp_path, agents):
    two_in_each_place(tmp_path / "odd", ContrastBolusAgent=agents, SeriesInstanceUID=("1.2.1", "1.2.1"))
    write_series(tmp_path / "fine", STACK, SeriesInstanceUID="1.2.2")
    assert len(find_inputs(tmp_path)) == 2
    (_, fine), (_, odd) = list_inputs(tmp_path).series
    assert fine.problem == "" and "contrast phases" in odd.problem
    assert len(odd.choices) == 2  # by the numbers of the images
    for select, count in odd.choices:
        assert len(read_series(tmp_path / "odd", select=select).pixels) == count == 5


def test_a_choice_that_is_refused_keeps_no_other_series_from_being_listed(tmp_path):
    """What Python selects by need not be possible to type."""
    two_in_each_place(tmp_path / "odd", EchoTime=(2.3, 4.6), ContrastBolusAgent=("OMNI; 350",) * 2)
    write_series(tmp_path / "fine", STACK, SeriesInstanceUID="1.2.2", ContrastBolusAgent="OMNI; 350")
    (_, fine), (_, odd) = list_inputs(tmp_path, select={"ContrastBolusAgent": "OMNI; 350"}).series
    assert fine.problem == "" and fine.size == (32, 40, 5)
    assert "several echoes" in odd.problem and "The option select is" in odd.problem and odd.choices == ()


@pytest.mark.parametrize("kind", ["a frame of reference for each", "two acquisitions of two patients each"])
def test_choices_of_several_patients_are_not_offered(tmp_path, kind):
    """Two patients without a name, between whose slices lie half a thickness, each of them numbered from 1."""
    for patient in range(2):
        for acquisition in range(1 if "frame" in kind else 2):
            write_series(
                tmp_path / "odd", STACK + patient, names=[f"{patient}{acquisition}{k}" for k in range(5)],
                origin=(0, 0, 1.5 * patient), slice_step=3, SliceThickness=3, AcquisitionNumber=acquisition,
                PatientID=None, PatientName=None, per_slice=lambda k, patient=patient: (
                    {"FrameOfReferenceUID": uid(patient, k)} if "frame" in kind else {}),
            )  # fmt: skip
    write_series(tmp_path / "fine", STACK, SeriesInstanceUID="1.2.2")
    assert len(find_inputs(tmp_path)) == 2
    found = dict(list_inputs(tmp_path).series)
    assert found["fine"].problem == ""
    assert found["odd"].choices == ()
    assert "--select" not in found["odd"].problem and "Move the files of" in found["odd"].problem


def test_slices_of_a_tomography_without_places_are_no_choice(tmp_path):
    for width in (40, 20):
        write_series(tmp_path, STACK[:, :, :width], names=[f"{width}{k}" for k in range(5)], ImagePositionPatient=None)
    ((_, facts),) = list_inputs(tmp_path).series
    assert "image sizes" in facts.problem and facts.choices == ()


def test_descriptions_without_the_words_of_names(tmp_path):
    cases = {
        "Müller^Änne": ("CT of änne MÜLLER, thin", "CT of *** ***, thin"),
        "Li^An": ("Liver scan of An Li", "Liver scan of *** ***"),
        "王^小东": ("王小东 腹部", "*** *** 腹部".replace("*** ***", "******")),
        "Schmidt^A": ("Schmidts Leber, Schmidt2, Schmal", "*** Leber, ***, Schmal"),
        "Müller^Ø": ("of Mueller, muller, MÜLLERS", "of ***, ***, ***"),
        "Gonzalez^Å": ("Dr. González, Gómez", "Dr. ***, Gómez"),
        "": ("portal", "portal"),
    }
    for number, (name, (stored, shown)) in enumerate(cases.items()):
        own = {"SeriesInstanceUID": uid(number), "SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": stored}
        write_series(tmp_path / str(number), STACK, PatientName=name, PatientID="", **own)
        image = read_series(tmp_path / str(number))
        assert image.series_description == shown
    write_series(
        tmp_path / "other", STACK, SeriesDescription="asked by Dr. Referrer", ReferringPhysicianName="Referrer^A"
    )
    assert read_series(tmp_path / "other").series_description == "asked by Dr. ***"
    known = Dataset()
    known.PatientID = "KH471188"
    own = {"OtherPatientIDsSequence": [known], "ScheduledPerformingPhysicianName": "Brinkmann^B"}
    write_series(tmp_path / "more", STACK, SeriesDescription="T1 KH471188 Brinkmann", **own)
    assert read_series(tmp_path / "more").series_description == "T1 *** ***"


def test_the_files_of_a_series_are_listed_below_its_folder(study, capsys):
    deeper = study / "echoes" / "deeper"
    deeper.mkdir()
    (study / "echoes" / "slice_000.dcm").rename(deeper / "slice_000.dcm")
    main([str(study / "echoes"), "--json"])
    (one,) = json.loads(capsys.readouterr().out)["series"]
    assert one["folder"] == str(study / "echoes")
    assert one["files"] == ["deeper/slice_000.dcm", *(f"slice_{k:03d}.dcm" for k in range(1, 10))]


def test_a_mistyped_option_has_the_nearest_name(study, capsys):
    with pytest.raises(SystemExit):
        main([str(study), "--seris=5"])
    assert "--seris=5. The nearest name is '--series'." in capsys.readouterr().err


@pytest.mark.parametrize(("part", "shown"), [("MEIER ABDOMEN", "*** ABDOMEN"), ("PANCREAS", "PANCREAS")])
def test_a_body_part_names_no_patient(tmp_path, capsys, part, shown):
    write_series(tmp_path, STACK, BodyPartExamined=part, PatientName="Meier^Anna", PatientID="PANCREAS-0001")
    main([str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["series"][0]["body_part"] == shown


def test_ct_without_a_scale_is_told_in_the_table(tmp_path, capsys):
    write_series(tmp_path, STACK, RescaleSlope=None, RescaleIntercept=None)
    main([str(tmp_path)])
    assert "5 of 5 slices" in (told := capsys.readouterr().out)
    assert "stored values are taken as Hounsfield units" in told

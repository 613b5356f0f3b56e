# SPDX-License-Identifier: Apache-2.0
"""Everything in a folder is segmented or named."""

import threading
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.files import begin_run, require_replaceable
from bundle.pyraseg.inference.inputs import InputDataset
from bundle.pyraseg.inference.tally import Tally
from bundle.pyraseg.runtime.find import find_inputs
from tests.helpers.dicom_files import uid, write_image, write_series


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Hold one of everything, the good and the bad."""
    pixels = np.zeros((3, 8, 6), np.int16)
    write_series(tmp_path / "a" / "ct", pixels, SeriesInstanceUID=uid("one"))
    write_series(tmp_path / "two", pixels, SeriesInstanceUID=uid("two"))
    write_series(tmp_path / "two" / "more", pixels, SeriesInstanceUID=uid("three"))
    write_image(tmp_path / "nameless", pixels[0], SeriesInstanceUID=uid("four"))
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 3), np.int16), np.eye(4)), tmp_path / "volume.nii.gz")
    Image.new("RGB", (7, 5)).save(tmp_path / "photo.v2.jpg")
    Image.new("L", (7, 5)).save(tmp_path / "photo.v2.png")
    for name in ("notes.txt", "more.JSON", "Thumbs.db", "README", "lost.dcm"):
        (tmp_path / name).write_text("not an image")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_every_image_is_one_input_named_after_its_file_or_folder(folder):
    images = {item["name"] for item in find_inputs(folder) if "image" in item}
    assert images == {"a/ct", "two", "two/more", "nameless", "volume", "photo.v2_1", "photo.v2_2", "broken"}


def test_what_is_no_image_is_named_with_its_fault(folder):
    faults = {item["name"]: item["fault"] for item in find_inputs(folder) if "fault" in item}
    assert faults == {"lost.dcm": "is not DICOM", "empty": "is an empty folder"}


def test_files_that_accompany_images_are_counted_once_and_no_inputs(folder, caplog):
    caplog.set_level("INFO")
    items = find_inputs(folder)
    assert not {"notes.txt", "more.JSON", "Thumbs.db", "README"} & {item["name"] for item in items}
    (told,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert told == "left out: 4 beside the images (README, Thumbs.db, more.JSON and 1 more)"


def test_an_image_is_one_whatever_it_is_called(tmp_path, caplog):
    write_image(tmp_path / "slice.txt", np.zeros((8, 6), np.int16), SeriesInstanceUID=uid("text"))
    caplog.set_level("INFO")
    assert [item["name"] for item in find_inputs(tmp_path)] == ["slice.txt"] and "left out" not in caplog.text


def test_a_broken_input_stops_no_other(folder):
    def load(item):
        if item["name"] == "broken":
            raise PyrasegError("cut short")
        if item["name"] == "nameless":
            raise KeyError("Secret^Name")  # a library's message may quote a header
        return item

    data = find_inputs(folder)
    tally = Tally(data)
    dataset = InputDataset(data, load, tally=tally)
    tally.start()
    assert [item["name"] for item in dataset] == [
        item["name"] for item in data if "image" in item and item["name"] not in ("broken", "nameless")
    ]
    with pytest.raises(PyrasegError, match=r"(?s)4 of 10 .*broken: cut.*empty: .*lost.dcm: .*nameless: ") as told:
        tally.require_all()
    assert "an unexpected KeyError at test_inputs.py:" in str(told.value) and "Secret" not in str(told.value)
    tally.start()
    assert len(list(dataset)) == 6 and len(tally.failures) == 4  # a second pass starts anew


def test_one_volume_at_most_waits():
    """The next input is loaded while one is being segmented, and no other."""
    loaded, started = [], threading.Event()

    def load(item):
        loaded.append(item["name"])
        if len(loaded) == 2:
            started.set()
        return item

    data = [{"image": "", "name": name} for name in "abcd"]
    inputs = iter(InputDataset(data, load, tally=Tally(data)))
    assert next(inputs)["name"] == "a"
    assert started.wait(10)  # by itself
    assert loaded == ["a", "b"]
    assert [item["name"] for item in inputs] == ["b", "c", "d"]


def test_results_and_hidden_files_are_no_inputs(folder):
    before = {item["name"] for item in find_inputs(folder)}
    (folder / "out" / "a").mkdir(parents=True)
    Image.new("L", (7, 5)).save(folder / "out" / "a" / "photo.png")
    (folder / ".DS_Store").write_bytes(b"what a file browser leaves")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").write_bytes(b"")
    assert {item["name"] for item in find_inputs(folder, leave_out=folder / "out")} == before
    with pytest.raises(PyrasegError, match="results would be read as inputs"):
        find_inputs(folder, leave_out=folder)


def test_results_of_names_that_lead_back_among_the_inputs_are_refused(tmp_path):
    (tmp_path / "in" / "in").mkdir(parents=True)
    Image.new("L", (7, 5)).save(tmp_path / "in" / "in" / "photo.png")
    with pytest.raises(PyrasegError, match="among the inputs"):  # the result would be tmp_path/in/photo.png
        find_inputs(tmp_path / "in", leave_out=tmp_path)
    assert len(find_inputs(tmp_path / "in" / "in", leave_out=tmp_path)) == 1


def test_results_of_an_earlier_run_that_are_replaced_are_told(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    Image.new("L", (7, 5)).save(tmp_path / "in" / "x.jpg")
    (tmp_path / "in" / "out").mkdir()
    (tmp_path / "in" / "out" / "y.png").write_bytes(b"of another input")
    find_inputs(tmp_path / "in", leave_out=tmp_path / "in" / "out")
    assert "earlier run" not in caplog.text
    (tmp_path / "in" / "out" / "x.png").write_bytes(b"of x.png")
    find_inputs(tmp_path / "in", leave_out=tmp_path / "in" / "out")
    assert "holds results of an earlier run, such as x.png" in caplog.text
    caplog.clear()
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "volumes.csv").write_text("of other inputs")
    find_inputs(tmp_path / "in", leave_out=tmp_path / "table")
    assert "holds results of an earlier run, such as volumes.csv" in caplog.text


def test_detached_pixels_are_no_input_of_their_own(tmp_path):
    image = itk.image_from_array(np.zeros((3, 4, 5), np.int16))
    itk.imwrite(image, str(tmp_path / "meta.mhd"))
    itk.imwrite(image, str(tmp_path / "nrrd.nhdr"))
    assert len(list(tmp_path.iterdir())) == 4
    assert [item.get("image") for item in find_inputs(tmp_path)] == [
        str(tmp_path / "meta.mhd"),
        str(tmp_path / "nrrd.nhdr"),
    ]


def test_detached_pixels_of_any_name_are_no_input_and_no_result_replaces_them(tmp_path):
    image, planes = itk.image_from_array(np.zeros((3, 4, 5), np.int16)), [f"plane {number}.raw" for number in range(3)]
    for name in ("one.mhd", "some.mha", "other.nhdr"):
        itk.imwrite(image, str(tmp_path / name.replace(".mha", ".mhd")))
    (tmp_path / "one.raw").rename(tmp_path / "all of it.png.raw")
    (tmp_path / "one.mhd").write_text((tmp_path / "one.mhd").read_text().replace("one.raw", "all of it.png.raw"))
    text = (tmp_path / "some.mhd").read_text().replace("some.raw", "LIST\n" + "\n".join(planes))
    (tmp_path / "some.mha").write_text(text)
    for name in ("some.mhd", "some.raw"):
        (tmp_path / name).unlink()
    for name in planes:
        (tmp_path / name).write_bytes(bytes(40))
    headers = ("one.mhd", "other.nhdr", "some.mha")
    begin_run()
    assert [item.get("image") for item in find_inputs(tmp_path)] == [str(tmp_path / name) for name in headers]
    for name in (*planes, "all of it.png.raw"):
        with pytest.raises(PyrasegError, match="is an input of this run"):
            require_replaceable(tmp_path / name)


def test_a_single_file_is_an_input(folder):
    assert [item["name"] for item in find_inputs(folder / "volume.nii.gz")] == ["volume"]
    assert [item["name"] for item in find_inputs(folder / "nameless")] == ["nameless"]


def test_refuses_nothing_to_do(tmp_path):
    with pytest.raises(PyrasegError, match=r"nothing at .*absent"):
        find_inputs(tmp_path / "absent")
    with pytest.raises(PyrasegError, match="holds no image"):
        find_inputs(tmp_path)
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(PyrasegError, match=r"holds no image\. Found instead: 1 not DICOM\. Images are DICOM, "):
        find_inputs(tmp_path)
    with pytest.raises(PyrasegError, match=r"notes\.txt is no image \(found: not DICOM\)\. Images are DICOM, "):
        find_inputs(tmp_path / "notes.txt")


def test_a_lone_file_that_is_called_by_its_uid_keeps_the_whole_of_it(tmp_path: Path) -> None:
    for name in ("1.2.840.1", "1.2.840.2.dcm", "IM.IMA"):
        write_image(tmp_path / name, np.zeros((8, 6), np.int16), SeriesInstanceUID=uid(name))
    assert [item["name"] for item in find_inputs(tmp_path)] == ["1.2.840.1", "1.2.840.2", "IM"]


def photographs(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (7 + number, 5)).save(folder / name)


def test_names_that_collide_are_told(tmp_path, caplog):
    photographs(tmp_path, "x.png", "x.jpg", "x_1.png", "a.png", "a_overlay.png")
    found = {Path(item["image"]).name: item["name"] for item in find_inputs(tmp_path)}
    assert found == {"x.jpg": "x_2", "x.png": "x_3", "x_1.png": "x_1", "a.png": "a", "a_overlay.png": "a_overlay_1"}
    assert [record.getMessage().rpartition("/")[2] for record in caplog.records] == [
        "a_overlay.png are called a_overlay_1, since a_overlay would stand for more than one input",
        "x.jpg are called x_2, since x would stand for more than one input",
        "x.png are called x_3, since x would stand for more than one input",
    ]


def test_what_is_no_image_takes_no_name_from_one(tmp_path):
    photographs(tmp_path, "scan.png")
    (tmp_path / "scan").write_text("not an image")
    assert [item["name"] for item in find_inputs(tmp_path)] == ["scan", "scan (no image)"]


@pytest.mark.parametrize("spelling", ["itself", "link", "dots", "relative"])
@pytest.mark.parametrize("single", [True, False])
def test_results_among_the_inputs_are_refused(tmp_path, monkeypatch, spelling, single):
    photographs(tmp_path, "in/lesion.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    output = {"itself": tmp_path / "in", "link": tmp_path / "link", "dots": tmp_path / "in" / ".." / "in"}
    with pytest.raises(PyrasegError, match="the folder of inputs and of results"):
        find_inputs("in/lesion.png" if single else tmp_path / "in", leave_out=output.get(spelling, Path("in")))


def test_results_above_the_inputs_may_replace_none_of_them(tmp_path):
    """The input in/x.png would get its label map where the input x.png of the folder lies."""
    photographs(tmp_path, "in/in/x.jpg", "in/x.png")
    with pytest.raises(PyrasegError, match=r"in/x\.png is an input of this run"):
        find_inputs(tmp_path / "in", leave_out=tmp_path)
    assert len(find_inputs(tmp_path / "in", leave_out=tmp_path / "in" / "in" / "out")) == 2


def test_results_in_the_folder_of_the_inputs_are_not_read(tmp_path):
    photographs(tmp_path, "in/x.png", "in/out/x.png")
    (tmp_path / "link").symlink_to(tmp_path / "in" / "out")
    assert [item["name"] for item in find_inputs(tmp_path / "in", leave_out=tmp_path / "link")] == ["x"]


def test_a_series_in_the_current_folder_is_called_as_the_folder(tmp_path, monkeypatch):
    write_series(tmp_path / "123", np.zeros((3, 8, 6), np.int16))
    monkeypatch.chdir(tmp_path / "123")
    assert [item["name"] for item in find_inputs(".")] == ["123"]

# SPDX-License-Identifier: Apache-2.0
"""A path that is being replaced holds the old content or the whole new one, whatever happens."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.pyraseg.core.errors import DiskError, PyrasegError
from bundle.pyraseg.core.files import (
    begin_run,
    protect,
    protecting_inputs,
    remove_results,
    replacing,
    require_writable,
    write_text,
)
from bundle.pyraseg.inference.writers.label_map import write_grid
from bundle.pyraseg.training.checkpoints import save_atomically


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_reader_sees_the_old_content_until_the_block_ends(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename across file systems would be a copy
    assert path.read_text() == "new"
    assert listed(tmp_path) == ["model.pt"]


def test_a_block_that_raises_leaves_the_old_content_alone(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half-way"), replacing(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half-way")
    assert path.read_text() == "old"
    assert listed(tmp_path) == ["model.pt"]


def test_parents_are_made(tmp_path):
    with replacing(tmp_path / "a" / "b" / "log.csv") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a" / "b" / "log.csv").read_text() == "new"


def test_two_writers_at_once_do_not_share_a_temporary_path(tmp_path):
    path = tmp_path / "log.csv"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # whose block ended last
    assert listed(tmp_path) == ["log.csv"]


def test_a_folder_appears_whole(tmp_path):
    path = tmp_path / "entry"
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "image").write_text("image")
        assert not path.exists()
        (temporary / "label").write_text("label")
    assert listed(path) == ["image", "label"]
    assert listed(tmp_path) == ["entry"]


def test_a_folder_whose_block_raises_does_not_appear(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "entry") as temporary:
        temporary.mkdir()
        (temporary / "image").write_text("image")
        raise RuntimeError
    assert listed(tmp_path) == []


def test_a_folder_that_holds_something_is_not_replaced(tmp_path):
    path = tmp_path / "entry"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(OSError), replacing(path) as temporary:
        temporary.mkdir()
    assert listed(path) == ["old"]
    assert listed(tmp_path) == ["entry"]


def test_a_kill_in_the_middle_leaves_the_old_content_alone(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")
    program = """
import sys, time
from bundle.pyraseg.core.files import replacing
with replacing(sys.argv[1]) as temporary:
    with temporary.open("w") as file:
        file.write("ne")
        file.flush()
        print("half-way", flush=True)
        time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "half-way\n"
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(listed(tmp_path)) == 2  # the kill was in the middle: what was written so far lies beside it


VOXELS = np.random.default_rng(0).integers(256, size=(100, 100, 100), dtype=np.uint8)  # 1 MB, which does not compress

WRITERS = {
    "checkpoint": lambda folder: save_atomically(torch.from_numpy(VOXELS), folder / "model.pt"),
    "volume": lambda folder: write_grid(VOXELS, np.eye(4), folder / "ct", compression=1),
    "picture": lambda folder: write_grid(VOXELS.reshape(1000, 1000), np.eye(4), folder / "photograph", compression=1),
    "folder": lambda folder: write_folder(folder / "entry"),
}


def write_folder(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.mkdir()
        np.save(temporary / "image.npy", VOXELS)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_disk_that_takes_no_more_is_named_as_the_reason(tmp_path, limit_files, write):
    limit_files(200_000)
    with pytest.raises(DiskError, match=rf"Nothing can be written to {tmp_path}: File too large \(\d+ MB are free"):
        write(tmp_path)
    assert listed(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    said = rf"The folder {tmp_path}/file/runs cannot be created: Not a directory"
    with pytest.raises(DiskError, match=said), replacing(tmp_path / "file" / "runs" / "run.json"):
        pass


@pytest.mark.parametrize("spelling", ["same", "dots", "link", "folder link", "hard link", "relative"])
def test_an_input_is_never_replaced_however_its_path_is_spelled(tmp_path, monkeypatch, spelling):
    path = tmp_path / "in" / "scan.png"
    path.parent.mkdir()
    path.write_text("input")
    other = tmp_path / "other.png"
    if spelling == "link":
        other.symlink_to(path)
    elif spelling == "hard link":
        other.hardlink_to(path)
    (tmp_path / "out").symlink_to(path.parent)
    monkeypatch.chdir(tmp_path)
    target = {
        "same": path,
        "dots": tmp_path / "in" / ".." / "in" / "scan.png",
        "folder link": tmp_path / "out" / "scan.png",
        "relative": Path("in/scan.png"),
    }.get(spelling, other)
    with protecting_inputs():
        protect([path])
        with pytest.raises(PyrasegError, match="is an input of this run"), replacing(target) as temporary:
            temporary.write_text("result")
    assert path.read_text() == target.read_text() == "input"
    with replacing(target) as temporary:  # the run is over
        temporary.write_text("result")
    assert target.read_text() == "result"


def test_nothing_is_protected_where_no_run_is_open(tmp_path):
    """A notebook reads by one call what the next is to write."""
    path = tmp_path / "scores.csv"
    path.write_text("before")
    protect([path])
    write_text(path, "after")
    assert path.read_text() == "after"


def test_each_run_has_inputs_of_its_own(tmp_path):
    paths = [tmp_path / "of_first", tmp_path / "of_second"]
    for path in paths:
        path.write_text("input")
        begin_run()
        protect([path])
    write_text(paths[0], "result")
    with pytest.raises(PyrasegError, match="input of this run"):
        write_text(paths[1], "result")


def test_a_run_that_begins_in_a_block_is_the_same_run(tmp_path):
    """A command has read a file before the config begins that it runs."""
    path = tmp_path / "scan.png"
    path.write_text("input")
    begin_run()
    protect([path])
    with protecting_inputs():
        begin_run()
        with pytest.raises(PyrasegError, match="input of this run"):
            write_text(path, "result")
    assert path.read_text() == "input"


def test_files_in_a_folder_that_is_an_input_are_not_replaced_and_new_ones_may_come(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_text("input")
    with protecting_inputs():
        protect([tmp_path / "series", tmp_path / "absent"])
        with pytest.raises(PyrasegError, match=r"is in .*, an input of this run"):
            write_text(tmp_path / "series" / "1.dcm", "result")
        write_text(tmp_path / "1.dcm", "result")
    assert (tmp_path / "series" / "1.dcm").read_text() == "input"


def test_a_deleted_input_protects_nothing_that_takes_its_place_on_the_disk(tmp_path):
    """A disk gives the number of a deleted file to a new one."""
    with protecting_inputs():
        for number in range(20):
            path = tmp_path / f"{number}.txt"
            path.write_text("input")
            protect([path])
            path.unlink()
        other = tmp_path / "other.txt"
        other.write_text("old")
        write_text(other, "new")
    assert other.read_text() == "new"


def test_a_folder_of_results_goes_only_where_it_holds_nothing_else(tmp_path):
    folder = tmp_path / "case_labels"
    folder.mkdir()
    (folder / "slice_1.png").touch()
    (folder / "notes.txt").touch()
    with pytest.raises(PyrasegError, match=r"notes\.txt, which is not a result"):
        remove_results(folder, r"slice_\d+\.png")
    assert len(listed(folder)) == 2
    (folder / "notes.txt").unlink()
    with protecting_inputs(), pytest.raises(PyrasegError, match="input of this run"):
        protect([folder / "slice_1.png"])
        remove_results(folder, r"slice_\d+\.png")
    remove_results(folder, r"slice_\d+\.png")
    assert not folder.exists()


def test_the_longest_name_that_a_disk_takes_is_written(tmp_path):
    for name in ("x" * 255, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 85):
        write_text(tmp_path / name, "result")
        assert (tmp_path / name).read_text() == "result"


def test_places_that_cannot_be_written_to_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("kept")
    require_writable([tmp_path, tmp_path / "new" / "er"], files=[tmp_path / "file", tmp_path / "a" / "model.pt"])
    assert listed(tmp_path) == ["file"]
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PyrasegError, match=f"{tmp_path / 'file'} is a file"):
            require_writable([folder])
    with pytest.raises(PyrasegError, match="is a folder, but a file"):
        require_writable(files=[tmp_path])
    with pytest.raises(DiskError, match="Nothing can be written to /proc"):  # nor by root
        require_writable(["/proc/results"])


def test_a_place_that_cannot_even_be_looked_at_is_refused_in_words(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "closed" / "below").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    places = {"x" * 300: "File name too long", "circle": "Too many levels of symbolic links"}
    for name, reason in places.items():
        with pytest.raises(DiskError, match=rf"{reason}\. Give another folder"):
            require_writable([tmp_path / name / "results"])
        with pytest.raises(DiskError, match=rf"{reason}\. Give another folder"):
            require_writable(files=[tmp_path / name])
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # whom the system lets into no folder of root's
        with pytest.raises(DiskError, match=r"Permission denied\. Give another folder"):
            require_writable([tmp_path / "closed" / "below" / "results"])
        with pytest.raises(DiskError, match=r"Permission denied\. Give another folder"):
            require_writable(files=[tmp_path / "closed" / "below" / "model.pt"])
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o700)


def test_a_read_only_disk_is_told_in_words():
    with pytest.raises(DiskError, match="/proc"), replacing("/proc/result.csv") as temporary:  # nor by root
        temporary.write_text("new")

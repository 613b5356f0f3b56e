# SPDX-License-Identifier: Apache-2.0
"""`pyraseg archive`, from a folder, a store and a PACS to each of them."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pydicom
import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.commands.archive import main
from tests.helpers.dicom_files import uid
from tests.helpers.pacs_series import small_series
from tests.helpers.s3_server import BUCKET
from tests.tools.archive.conftest import masks
from tests.tools.archive.test_listing import upload
from tests.tools.archive.test_table import row, written

ROOT = Path(__file__).resolve().parents[3]
SERIES = 4


@pytest.fixture
def words(model, tmp_path) -> Callable[..., list[str]]:
    """Return what makes the arguments of the command, from a folder of series to another."""
    for number in range(SERIES):
        small_series(tmp_path / "a", f"s{number}", seed=number)

    def make(*more: str, source: object = tmp_path / "a", to: object = tmp_path / "results") -> list[str]:
        words = [str(source), "--to", str(to), "--model", str(model.path), "--unlike", "ignore"]
        return [*words, "--work-dir", str(tmp_path / "work"), *more]

    return make


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.dcm")}


def test_a_folder_is_segmented_once(words, model, tmp_path, capsys, caplog):
    main(words())
    assert f"{SERIES} of {SERIES} series are in {tmp_path / 'results'}" in capsys.readouterr().out
    found = content(tmp_path / "results")
    assert len(found) == SERIES
    for number in range(SERIES):
        (name,) = [one for one in found if one.split("/")[1] == uid("series", f"s{number}")]
        source = tmp_path / "a" / f"s{number}"
        assert np.array_equal(masks(tmp_path / "results" / name, source.iterdir()), model.truth(str(source)))
    assert "Secret" not in caplog.text and "SECRET" not in caplog.text
    assert not list((tmp_path / "work" / "images").iterdir())
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "results").rglob("*")}
    main(words())
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "results").rglob("*")} == before
    main(words("--seg_type", "LABELMAP"))
    assert len(content(tmp_path / "results")) == 2 * SERIES


def test_parts_of_a_table_are_together_the_whole(words, tmp_path):
    main(words(to=tmp_path / "whole"))
    table = tmp_path / "work" / "table.parquet"
    table.rename(tmp_path / "listed.parquet")
    for number in range(1, 4):
        main([*words("--part", f"{number}/3", source=tmp_path / "listed.parquet")[:-4], *_other(tmp_path, number)])
    assert content(tmp_path / "results") == content(tmp_path / "whole")
    journals = sorted(file.name for file in (tmp_path / "parts").glob("*.sqlite"))
    assert journals == [f"journal-{number}-of-3.sqlite" for number in range(1, 4)]


def _other(tmp_path: Path, number: int) -> list[str]:
    return ["--work-dir", str(tmp_path / "parts"), "--part", f"{number}/3"]


def test_a_filtered_table_is_done_and_no_more(words, tmp_path, capsys):
    with_none = words()
    del with_none[1:3]
    main(with_none)
    assert "Nothing was segmented. To do so: pyraseg archive" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
    table = pq.read_table(tmp_path / "work" / "table.parquet")
    wanted = [uid("series", "s1"), uid("series", "s3")]
    pq.write_table(table.filter(pc.is_in(table["series"], pa.array(wanted))), tmp_path / "mine.parquet")
    main(words(source=tmp_path / "mine.parquet"))
    assert {name.split("/")[1] for name in content(tmp_path / "results")} == set(wanted)


def test_what_fails_is_named_and_counted(words, tmp_path, caplog):
    torn = tmp_path / "a" / "s0" / "slice_000.dcm"
    torn.write_bytes(torn.read_bytes()[:-100])
    (tmp_path / "a" / "note.txt").write_text("no DICOM")
    with pytest.raises(PyrasegError, match="1 series are not segmented, 1 of them failed"):
        main(words())
    assert f"{uid('series', 's0')}: failed" in caplog.text
    assert "left out: 1 files, not DICOM (such as note.txt)" in caplog.text
    page = (tmp_path / "work" / "summary.html").read_text()
    assert "slice" in page and "not DICOM" in page and "Secret" not in page


def test_results_and_work_within_the_source_are_no_input(words, tmp_path, capsys):
    more = words(to=tmp_path / "a" / "results")
    more[-1] = str(tmp_path / "a" / "work")
    for _ in range(2):
        main(more)
        assert f"{SERIES} of {SERIES} series are in" in capsys.readouterr().out
        assert len(pq.read_table(tmp_path / "a" / "work" / "table.parquet")) == SERIES


def test_two_sources_share_a_folder_of_work_and_two_targets_do_not(words, tmp_path):
    main(words())
    small_series(tmp_path / "b", "other", seed=9)
    main(words(source=tmp_path / "b"))
    assert len(content(tmp_path / "results")) == SERIES + 1
    with pytest.raises(PyrasegError, match="Give another --work-dir"):
        main(words(to=tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "SOURCE/nothing"}, "There is no folder"),
        ({"source": "SOURCE/nothing.parquet"}, "There is no table"),
        ({"to": "SOURCE"}, "is the folder of images and of results"),
        ({"source": f"s3://{BUCKET}/a", "to": f"s3://{BUCKET}/a/"}, "is the address of images and of results"),
        ({"to": "s3://"}, "is no address of object storage"),
    ],
)
def test_what_cannot_be_is_said(change, message, words, tmp_path):
    change = {name: value.replace("SOURCE", str(tmp_path / "a")) for name, value in change.items()}
    with pytest.raises(PyrasegError, match=message):
        main(words(**change))
    assert not (tmp_path / "results").exists()


def test_a_table_that_lacks_a_column_is_refused(words, tmp_path):
    written(tmp_path / "t.parquet", [row(1)])
    pq.write_table(pq.read_table(tmp_path / "t.parquet").drop_columns(["study"]), tmp_path / "less.parquet")
    with pytest.raises(PyrasegError, match=r"lacks the columns study. Keep them when it is filtered"):
        main(words(source=tmp_path / "less.parquet"))


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_a_part_is_a_number_of_parts(part, words, capsys):
    with pytest.raises(SystemExit):
        main(words(f"--part={part}"))
    assert "it is NUMBER/PARTS" in capsys.readouterr().err


def test_several_workers_need_ray(words, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PyrasegError, match=r"pip install \"pyraseg\[ray\]\""):
        main(words("--workers", "2"))


def test_a_store_to_itself_has_the_bytes_of_folders(words, store, tmp_path):
    main(words())
    upload(store, tmp_path / "a")
    more = words(source=f"s3://{BUCKET}/studies", to=f"s3://{BUCKET}/studies/results")
    more[-1] = str(tmp_path / "work of the store")
    for _ in range(2):
        main(more)
        stored = [key for key in store.keys("studies/results") if key.endswith(".dcm")]
        assert {key.removeprefix("studies/results/"): store.read(key) for key in stored} == content(
            tmp_path / "results"
        )


def test_a_pacs_to_itself_has_one_result_a_series(words, pacs, tmp_path):
    pacs.add((tmp_path / "a").rglob("*.dcm"))
    more = words("--ca-bundle", str(pacs.ca_bundle), "--filter", "Modality=CT", source=pacs.url, to=pacs.url)
    main(more)
    for file in (tmp_path / "work").glob("journal*"):
        file.unlink()
    main(more)
    assert len(pacs.instances(Modality="SEG")) == SERIES
    own = words()
    own[-1] = str(tmp_path / "work of the folder")
    main(own)
    uids = {pacs.rest("GET", f"/instances/{one}/tags?simplify").json()["SOPInstanceUID"] for one in
            pacs.instances(Modality="SEG")}  # fmt: skip

    assert uids == {pydicom.dcmread(file).SOPInstanceUID for file in (tmp_path / "results").rglob("*.dcm")}


def started(words: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-u", "-m", "bundle.pyraseg", "archive", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_drivers_share_a_journal(words, tmp_path):
    for number in range(30):
        small_series(tmp_path / "a", f"more{number}", seed=number)
    main([word for word in words() if word not in ("--to", str(tmp_path / "results"))])
    table = words(source=tmp_path / "work" / "table.parquet")
    processes = [started(table) for _ in range(2)]
    said = [process.communicate(timeout=250)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert len(content(tmp_path / "results")) == SERIES + 30
    done = Counter(line for text in said for line in text.splitlines() if "series are in" in line)
    assert done.total() == 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_stops_in_words_and_the_next_run_goes_on(workers, words, tmp_path):
    if workers > 1:
        pytest.importorskip("ray")
    for number in range(60):
        small_series(tmp_path / "a", f"more{number}", seed=number, slices=12)
    more = words("--workers", str(workers))
    with started(more) as process:
        for _ in range(1200):
            if len(content(tmp_path / "results")) > 2:
                break
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "What was done is remembered: the same command goes on." in said, said
    assert "Traceback" not in said
    before = content(tmp_path / "results")
    assert 2 < len(before) < SERIES + 60
    main(words())
    after = content(tmp_path / "results")
    assert len(after) == SERIES + 60 and before.items() <= after.items()
    assert not [file for file in (tmp_path / "results").rglob(".*")]

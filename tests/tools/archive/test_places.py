# SPDX-License-Identifier: Apache-2.0
"""Sources give what was listed or say why not; targets hold a result whole, once, and nowhere else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.pyraseg.core import DiskError, PyrasegError
from bundle.pyraseg_tools.archive import Access, Row, StoreListing, open_target, result_name
from bundle.pyraseg_tools.archive.places import open_source
from bundle.pyraseg_tools.pacs import PacsError, Unavailable
from tests.helpers.pacs_series import small_series
from tests.helpers.s3_server import BUCKET
from tests.tools.archive.test_listing import upload

FIGURES = {"volumes": {"liver": 1.5}, "unlike": None}
ROW = Row("", "1.2", "1.2.3", "CT", "", "", 0, 0, 1, 0, "ab" * 32, (), "")
MODEL = "0123456789abcdef"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    small_series(tmp_path / "a", "one")
    return tmp_path / "a"


def test_a_folder_gives_its_files_where_they_are(archive, listed, tmp_path):
    (row,) = listed(archive)
    files = open_source(row.source, Access()).fetch(row, tmp_path)
    assert files == sorted(archive.rglob("*.dcm"))


def test_a_table_leads_nowhere_outside_the_folder(archive, listed, tmp_path):
    (row,) = listed(archive)
    (tmp_path / "outside").write_text("secret")
    for file in ("../outside", str(tmp_path / "outside"), "one/../../outside"):
        with pytest.raises(PyrasegError, match="which is not in"):
            open_source(row.source, Access()).fetch(replace(row, files=(file,)), tmp_path)


def test_a_series_that_changed_after_the_listing_is_refused(archive, listed, tmp_path):
    (row,) = listed(archive)
    first = archive / row.files[0]
    with first.open("ab") as file:
        file.write(b"12")
    with pytest.raises(PyrasegError, match=f"3 files have {row.bytes + 2} bytes, and had {row.bytes} when"):
        open_source(row.source, Access()).fetch(row, tmp_path)
    first.unlink()
    with pytest.raises(PyrasegError, match=r"slice_000.dcm is not there any more. List") as error:
        open_source(row.source, Access()).fetch(row, tmp_path)
    assert not isinstance(error.value, PacsError)


def test_a_folder_that_is_gone_as_a_whole_is_no_fault_of_a_series(archive, listed, tmp_path):
    (row,) = listed(archive)
    archive.rename(tmp_path / "unmounted")
    with pytest.raises(Unavailable, match=r"There is no folder .* Mount it"):
        open_source(row.source, Access()).fetch(row, tmp_path)


def test_a_store_gives_the_bytes_or_says_that_they_changed(archive, listed, wanted, store, tmp_path):
    upload(store, archive)
    (row,) = listed(listing=StoreListing(f"s3://{BUCKET}/studies", wanted))
    (tmp_path / "images").mkdir()
    files = open_source(row.source, Access()).fetch(row, tmp_path / "images")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in sorted(archive.rglob("*.dcm"))]
    store.add(f"studies/{row.files[1]}", b"other")
    with pytest.raises(PyrasegError, match="List the source again"):
        open_source(row.source, Access()).fetch(row, tmp_path / "images")
    store.client.delete_object(Bucket=BUCKET, Key=f"studies/{row.files[1]}")
    with pytest.raises(PyrasegError, match=r"not in .* any more. List the source again") as error:
        open_source(row.source, Access()).fetch(row, tmp_path / "images")
    assert not isinstance(error.value, PacsError)


@pytest.mark.parametrize("uid", ["../../etc", "/etc/passwd", "", "1.2/3", "..", "1.2\n", "1" * 300, "é", "1.2\\..\\x"])
def test_a_uid_leads_nowhere_outside_the_target(uid, tmp_path):
    name = result_name(replace(ROW, study=uid, series=uid), MODEL)
    parts = name.split("/")
    assert len(parts) == 3 and parts[0] == parts[1]
    assert parts[0].startswith("x") and parts[0][1:].isalnum() and len(parts[0]) == 13


def test_results_of_other_images_models_and_patients_have_other_names():
    names = [
        result_name(row, model)
        for row in (
            ROW,
            replace(ROW, digest="cd" * 32),
            replace(ROW, series="1.2.3:1"),
            replace(ROW, series="1.2.3:1:2"),
        )
        for model in (MODEL, "f" * 64)
    ]
    assert len(set(names)) == 8 and names[4] == "1.2/1.2.3_1/0123456789ab_abababababab_seg"


@pytest.fixture(params=["folder", "store"])
def target(request, tmp_path):
    """Return an address, and what lies there by plain reading."""
    if request.param == "folder":
        root = tmp_path / "results"
        paths = lambda: {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}  # noqa: E731
        return str(root), paths
    store = request.getfixturevalue("store")
    return f"s3://{BUCKET}/results", lambda: {key[len("results/") :]: store.read(key) for key in sorted(store.keys())}


def test_a_result_is_found_with_its_figures_and_stored_once(target, tmp_path):
    address, content = target
    (tmp_path / "seg.dcm").write_bytes(b"a result")
    place = open_target(address, Access())
    assert place.find("1.2/1.3/m_seg") is None
    for _ in range(2):
        place.deliver(tmp_path / "seg.dcm", "1.2/1.3/m_seg", FIGURES, tmp_path)
    assert place.find("1.2/1.3/m_seg") == FIGURES
    found = content()
    assert found.keys() == {"1.2/1.3/m_seg.dcm", "1.2/1.3/m_seg.json"}
    assert found["1.2/1.3/m_seg.dcm"] == b"a result" and json.loads(found["1.2/1.3/m_seg.json"]) == FIGURES


def test_a_result_without_its_figures_is_made_again(target, tmp_path, request):
    address, content = target
    (tmp_path / "seg.dcm").write_bytes(b"a result")
    place = open_target(address, Access())
    place.deliver(tmp_path / "seg.dcm", "1.2/1.3/m_seg", FIGURES, tmp_path)
    if "://" in address:
        request.getfixturevalue("store").client.delete_object(Bucket=BUCKET, Key="results/1.2/1.3/m_seg.json")
    else:
        Path(address, "1.2/1.3/m_seg.json").unlink()
    assert place.find("1.2/1.3/m_seg") is None
    place.deliver(tmp_path / "seg.dcm", "1.2/1.3/m_seg", FIGURES, tmp_path)
    assert place.find("1.2/1.3/m_seg") == FIGURES and len(content()) == 2


def test_a_full_disk_holds_no_half_result(tmp_path, limit_files):
    (tmp_path / "seg.dcm").write_bytes(bytes(10000))
    place = open_target(str(tmp_path / "results"), Access())
    limit_files(5000)
    with pytest.raises(DiskError):
        place.deliver(tmp_path / "seg.dcm", "1.2/1.3/m_seg", FIGURES, tmp_path)
    limit_files(-1)
    assert place.find("1.2/1.3/m_seg") is None
    assert not list((tmp_path / "results").rglob("*.dcm*")) and not list((tmp_path / "results").rglob(".*"))


def test_a_target_that_is_a_file_is_said(tmp_path):
    (tmp_path / "seg.dcm").write_bytes(b"a result")
    (tmp_path / "results").write_text("a file")
    with pytest.raises(DiskError, match="cannot be created"):
        open_target(str(tmp_path / "results"), Access()).deliver(tmp_path / "seg.dcm", "1/2/m", FIGURES, tmp_path)

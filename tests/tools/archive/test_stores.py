# SPDX-License-Identifier: Apache-2.0
"""A real S3 server, and a way to it on which requests fail and answers are lost."""

from datetime import timedelta

import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.archive import Access, is_store, open_target, stores
from bundle.pyraseg_tools.archive.stores import open_store
from bundle.pyraseg_tools.pacs import PacsError, Unavailable
from tests.helpers.s3_server import BUCKET, SECRET, bad_way_to, give_way

NAME = "1.2/1.3/m_seg"
FIGURES = {"volumes": {}, "unlike": None}
TARGET = f"s3://{BUCKET}/results"


@pytest.fixture
def bad_way(store, monkeypatch):
    with bad_way_to(store.url) as way:
        give_way(monkeypatch, way.url)
        yield way


@pytest.fixture
def result(tmp_path):
    (tmp_path / "seg.dcm").write_bytes(b"a result")
    return tmp_path / "seg.dcm"


def test_what_is_an_address_of_a_store():
    assert all(map(is_store, ("s3://a", "gs://a/b", "az://a")))
    assert not any(map(is_store, ("s3", "s3:/a", "https://a", "/data/s3://a", "folder", "C://a")))
    for url in ("s3://", "gs://"):
        with pytest.raises(PyrasegError, match="is no address of object storage"):
            open_store(url)


def test_what_fails_for_a_moment_is_asked_again(bad_way, store, result, tmp_path):
    seen = set()

    def first_time(*request: str) -> bool:
        return request not in seen and not seen.add(request)

    bad_way.refuse = first_time
    target = open_target(TARGET, Access())
    target.deliver(result, NAME, FIGURES, tmp_path)
    assert target.find(NAME) == FIGURES
    assert store.read(f"results/{NAME}.dcm") == b"a result" and len(store.keys()) == 2
    assert bad_way.count("PUT", ".dcm") == 2


def test_a_result_whose_answer_was_lost_is_there_once(bad_way, store, result, tmp_path):
    lost = []
    bad_way.lose = lambda method, path: method == "PUT" and path.endswith(".dcm") and not lost and not lost.append(1)
    target = open_target(TARGET, Access())
    target.deliver(result, NAME, FIGURES, tmp_path)
    assert lost and sorted(store.keys()) == [f"results/{NAME}.dcm", f"results/{NAME}.json"]
    versions = store.client.list_object_versions(Bucket=BUCKET, Prefix="results/")["Versions"]
    assert len(versions) == 2 and store.read(f"results/{NAME}.dcm") == b"a result"


def test_a_result_that_another_worker_stored_meanwhile_stays(store, result, tmp_path):
    store.add(f"results/{NAME}.dcm", b"first")
    open_target(TARGET, Access()).deliver(result, NAME, FIGURES, tmp_path)
    assert store.read(f"results/{NAME}.dcm") == b"first"


def test_a_store_that_does_not_answer_is_said_without_secrets(bad_way, result, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=5)})
    bad_way.refuse = lambda *_: True
    with pytest.raises(PacsError, match="several times") as error:
        open_target(TARGET, Access()).find(NAME)
    assert SECRET not in str(error.value)
    give_way(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="no way to") as error:
        open_target(TARGET, Access()).find(NAME)
    assert SECRET not in str(error.value)


def test_no_such_bucket(store, result, tmp_path):
    with pytest.raises(Unavailable, match="there is no such bucket"):
        open_target("s3://nothing/results", Access()).deliver(result, NAME, FIGURES, tmp_path)

# SPDX-License-Identifier: Apache-2.0
"""Downloads over real HTTP: resumed, checked, refused."""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.datasets.public import download as module
from tests.helpers.web_site import Site

BODY = np.random.default_rng(0).bytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
download = partial(module.download, pause=0.01)


@pytest.fixture
def target(site: Site, tmp_path: Path) -> Path:
    """Return where to download to, with BODY at /set.zip of the site."""
    site.files["/set.zip"] = BODY
    return tmp_path / "downloads" / "set.zip"


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_whole_at_once(site, target):
    assert download(f"{site.url}/set.zip", target, checksum=SHA256) == SHA256.removeprefix("sha256:")
    assert target.read_bytes() == BODY
    assert left(target) == ["set.zip"]
    assert site.asked == [("/set.zip", None)]


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(site, target):
    site.breaks = [1_000_000, 500_000]
    download(f"{site.url}/set.zip", target, checksum=SHA256)
    assert target.read_bytes() == BODY
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in site.asked[1:]]
    assert starts == [1_000_000, 1_500_000]


def test_the_next_run_goes_on_where_the_last_one_ended(site, target, monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 0)
    site.breaks = [1_234_567]
    with pytest.raises(PyrasegError, match=r"1,234,567 bytes are in .*set\.zip\.part. Run the program again"):
        download(f"{site.url}/set.zip", target, checksum=SHA256)
    assert not target.exists()
    download(f"{site.url}/set.zip", target, checksum=SHA256)
    assert target.read_bytes() == BODY
    assert site.asked[1] == ("/set.zip", "bytes=1234567-")


@pytest.mark.parametrize("what", ["ranges", "etags"])
def test_a_server_that_cannot_go_on_starts_anew(site, target, what):
    setattr(site, what, False)
    site.breaks = [1_000_000]
    download(f"{site.url}/set.zip", target, checksum=SHA256)
    assert target.read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_not_glued_together(site, target, monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 0)
    site.breaks = [1_000_000]
    with pytest.raises(PyrasegError):
        download(f"{site.url}/set.zip", target)
    site.files["/set.zip"] = BODY[::-1]
    download(f"{site.url}/set.zip", target)
    assert target.read_bytes() == BODY[::-1]


def test_a_part_that_is_whole_already(site, target, monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 0)
    site.breaks = [1_000_000]
    with pytest.raises(PyrasegError):
        download(f"{site.url}/set.zip", target)
    (target.parent / "set.zip.part").write_bytes(BODY)
    download(f"{site.url}/set.zip", target, checksum=SHA256)
    assert target.read_bytes() == BODY


def test_a_part_that_is_too_long_starts_anew(site, target):
    site.breaks = [1_000_000]
    target.parent.mkdir()
    (target.parent / "set.zip.part").write_bytes(BODY + b"more")
    (target.parent / "set.zip.part.version").write_text(f'"\\"{hashlib.md5(BODY).hexdigest()}\\""')
    download(f"{site.url}/set.zip", target, checksum=SHA256)
    assert target.read_bytes() == BODY


def test_a_wrong_checksum_leaves_nothing(site, target):
    with pytest.raises(PyrasegError, match=r"is not the expected file: its SHA256 is .*deleted; run"):
        download(f"{site.url}/set.zip", target, checksum=f"sha256:{'0' * 64}")
    assert left(target) == []


def test_md5(site, target):
    download(f"{site.url}/set.zip", target, checksum=f"md5:{hashlib.md5(BODY).hexdigest()}")
    with pytest.raises(PyrasegError, match=r"its MD5 is .* Delete .*set.zip and run again"):
        download(f"{site.url}/set.zip", target, checksum=f"md5:{'0' * 32}")


def test_the_first_download_records_its_checksum_and_later_ones_must_agree(site, target, caplog):
    download(f"{site.url}/set.zip", target)
    assert "No checksum of set.zip is published" in caplog.text
    assert (target.parent / "set.zip.sha256").read_text() == f"{SHA256.removeprefix('sha256:')}  set.zip\n"
    target.unlink()
    site.files["/set.zip"] = BODY[:-1] + b"?"
    with pytest.raises(PyrasegError, match=r"the one recorded in .*set\.zip\.sha256 is"):
        download(f"{site.url}/set.zip", target)


def test_a_file_that_is_there_is_checked_and_not_transferred(site, target):
    download(f"{site.url}/set.zip", target, checksum=SHA256)
    download(f"{site.url}/set.zip", target, checksum=SHA256)
    assert len(site.asked) == 1


def test_server_errors_are_tried_again(site, target):
    site.errors = [503, 500]
    download(f"{site.url}/set.zip", target, checksum=SHA256)
    assert target.read_bytes() == BODY


def test_an_absent_file_is_one_message_at_once(site, target):
    with pytest.raises(PyrasegError, match=r"none\.zip cannot be downloaded: the server answers 404"):
        download(f"{site.url}/none.zip", target)
    assert len(site.asked) == 1


def test_a_server_that_is_not_there(target, monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 1)
    with pytest.raises(PyrasegError, match=r"was interrupted .*refused"):
        download("http://127.0.0.1:9/set.zip", target)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "set.zip"])
def test_other_addresses_are_refused(url, target):
    with pytest.raises(PyrasegError, match="is no address of the form https"):
        download(url, target)

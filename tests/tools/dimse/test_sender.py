# SPDX-License-Identifier: Apache-2.0
"""Results go to an archive, which takes them or not, and vouches for them in each way that the standard has."""

import threading
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import RLELossless

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.dimse import Peer, Sender
from bundle.pyraseg_tools.pacs import PacsError, Unavailable
from tests.helpers.authority import authority, signed
from tests.helpers.dimse_nodes import Archive, until
from tests.helpers.pacs_series import small_series
from tests.tools.dimse.conftest import threshold, to


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    images = small_series(tmp_path, "one")
    (tmp_path / "results").mkdir()
    threshold(images, tmp_path / "results", name="one")
    return list((tmp_path / "results").iterdir())


def test_it_arrives_as_it_was_written(archive, results, commitments):
    assert Sender(to(archive), commitments)(results) == "stored by ARCHIVE"
    (stored,) = archive.stored
    sent = pydicom.dcmread(results[0])
    assert stored == sent and stored.PixelData == sent.PixelData


def test_a_compressed_result_stays_so(archive, results, commitments):
    sent = pydicom.dcmread(results[0])
    sent.BitsAllocated = sent.BitsStored = 8
    sent.HighBit = 7
    sent.PixelData = bytes(sent.Rows * sent.Columns * sent.NumberOfFrames)
    sent.compress(RLELossless, generate_instance_uid=False)
    sent.save_as(results[0])
    Sender(to(archive), commitments)(results)
    assert archive.stored[0].file_meta.TransferSyntaxUID == RLELossless
    assert archive.stored[0].PixelData == sent.PixelData


@pytest.mark.parametrize(
    ("status", "kind"),
    [(0xA700, PacsError), (0x0110, PacsError), (0x0124, PacsError), (0xA900, PyrasegError), (0xC000, PyrasegError)],
)
def test_what_the_archive_does_not_take(status, kind, archive, results, commitments):
    """What is passing is tried again; what is not is a failure of the series."""
    archive.status = status
    with pytest.raises(kind, match=f"does not take the Segmentation Storage \\({status:04X}H") as caught:
        Sender(to(archive), commitments)(results)
    assert isinstance(caught.value, PacsError) == (kind is PacsError)


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_what_it_takes_though_it_says_more(status, archive, results, commitments):
    archive.status = status
    assert Sender(to(archive), commitments)(results) == "stored by ARCHIVE"


def test_no_way_to_the_archive(archive, results, commitments, tmp_path):
    own = to(archive)
    for host, port in (("127.0.0.1", 1), ("nowhere.invalid", 104)):
        caller = type(own)(own.title, Peer("ARCHIVE", host, port), timeouts=own.timeouts)
        with pytest.raises(Unavailable, match=f"{host}:{port}"):
            Sender(caller, commitments)(results)
    authority_files = authority(tmp_path / "ours")
    tls = signed(tmp_path / "ours", "node", authority_files).for_calling()
    with pytest.raises(Unavailable, match="does not answer by TLS"):
        Sender(to(archive, tls=tls), commitments)(results)
    assert not archive.stored


def test_an_archive_that_refuses_this_node(results, commitments, listening):
    """Our own listener is one, and it takes no segmentations either."""
    port = listening(peers=["CT1"])
    own = to(Archive(port=port))
    with pytest.raises(Unavailable, match="refuses this node, PYRASEG"):
        Sender(own, commitments)(results)
    port = listening(peers=["PYRASEG"])
    caller = type(own)("PYRASEG", Peer("PYRASEG", "127.0.0.1", port), timeouts=own.timeouts)
    with pytest.raises(PyrasegError, match="takes nothing of what this node offers") as caught:
        Sender(caller, commitments, commitment="never")(results)
    assert not isinstance(caught.value, PacsError)


def test_by_tls_to_whom_we_trust_alone(results, commitments, tmp_path):
    ours, others = authority(tmp_path / "ours"), authority(tmp_path / "others")
    node, peer = signed(tmp_path / "ours", "node", ours), signed(tmp_path / "ours", "peer", ours)
    false = signed(tmp_path / "others", "false", others)
    with Archive(tls=peer.for_callers()).running() as archive:
        assert Sender(to(archive, tls=node.for_calling()), commitments)(results) == "stored by ARCHIVE"
        with pytest.raises(Unavailable):
            Sender(to(archive), commitments)(results)
        assert len(archive.stored) == 1
    with Archive(tls=false.for_callers()).running() as archive:
        with pytest.raises(Unavailable, match="not trusted"):
            Sender(to(archive, tls=node.for_calling()), commitments)(results)
        assert not archive.stored


@pytest.mark.parametrize("way", ["same", "new"])
def test_the_archive_vouches(way, results, listening, commitments):
    with Archive(vouches=way).running() as archive:
        archive.where = "PYRASEG", listening()
        how = Sender(to(archive), commitments, commitment="required")(results)
        assert how == "stored and committed by ARCHIVE"
        (request,) = archive.requests
        (item,) = request.ReferencedSOPSequence
        sent = pydicom.dcmread(results[0])
        assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (sent.SOPClassUID, sent.SOPInstanceUID)
        assert archive.vouch(transaction="1.2.3") == 0x0115  # a transaction that nobody has asked for
        assert archive.vouch() == 0x0115  # one that is done with


def test_it_vouches_for_nothing(results, commitments):
    with Archive(vouches="same", failing=0x0112).running() as archive:
        with pytest.raises(PacsError, match=r"does not vouch for 1 of 1 results \(0112H\)"):
            Sender(to(archive), commitments)(results)
        archive.failing = 0
        assert "committed" in Sender(to(archive), commitments)(results)  # asked again, and sent again as the same
        assert len(set(archive.uids)) == 1


def test_it_vouches_late(results, listening, commitments):
    """Nothing is sent again then."""
    with Archive(vouches="later").running() as archive:
        archive.where = "PYRASEG", listening()
        sender = Sender(to(archive), commitments, patience=0.3)
        with pytest.raises(PacsError, match=r"has not vouched for them within 0\.3 s"):
            sender(results)
        assert archive.vouch() == 0
        assert sender(results) == "stored and committed by ARCHIVE"
        assert len(archive.stored) == 1


def test_it_does_not_offer_to_vouch(archive, results, commitments):
    with pytest.raises(PyrasegError, match="offers no storage commitment"):
        Sender(to(archive), commitments, commitment="required")(results)
    assert not archive.stored
    with Archive(vouches="same").running() as other:
        assert Sender(to(other), commitments, commitment="never")(results) == "stored by ARCHIVE"
        assert not other.requests


def test_what_is_no_result_is_not_sent(archive, results, commitments, tmp_path):
    other = pydicom.dcmread(results[0])
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    other.save_as(tmp_path / "other.dcm")
    with pytest.raises(PyrasegError, match="Encapsulated PDF Storage, which this program does not send"):
        Sender(to(archive), commitments)([*results, tmp_path / "other.dcm"])
    assert not archive.stored


def test_the_archive_goes_away_in_between(results, commitments):
    with Archive(vouches="later").running() as archive:
        sender = Sender(to(archive), commitments, patience=2)
        failed = []

        def run() -> None:
            try:
                sender(results)
            except PacsError as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: archive.requests)
    thread.join(20)
    assert failed

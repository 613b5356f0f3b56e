# SPDX-License-Identifier: Apache-2.0
"""Who may call, what is taken, and what no caller can do; the callers are pynetdicom's own."""

import socket
import ssl
import struct
import time
from dataclasses import replace

import pydicom
import pytest
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, SegmentationStorage
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.dimse import IMAGE_SYNTAXES, MOST_BYTES_OF_A_PDU, Inbox, Limits
from tests.helpers import dicom_files as files
from tests.helpers.authority import authority, signed
from tests.helpers.dimse_nodes import calling, send, until
from tests.helpers.pacs_series import small_series


def test_a_known_node_is_heard(inbox, listening, tmp_path):
    port = listening()
    with calling(port) as association:
        assert association.send_c_echo().Status == 0
    sent = small_series(tmp_path, "one")
    assert send(sent, port) == [0, 0, 0]
    (series,) = inbox.series(files.uid("study", "one"))
    received = [pydicom.dcmread(file) for file in inbox.files(series)]
    assert sorted(one.PixelData for one in received) == sorted(pydicom.dcmread(file).PixelData for file in sent)


def test_strangers_are_refused_and_named(inbox, listening, tmp_path, caplog):
    port = listening()
    images = small_series(tmp_path, "one")
    for title, called in (("STRANGER", "PYRASEG"), ("CT1", "ANOTHER"), ("ct1", "PYRASEG")):
        with calling(port, title=title, called=called) as association:
            assert association.is_rejected and not association.is_established
            assert association.acceptor.primitive.result == 1  # permanently
            assert association.acceptor.primitive.diagnostic == (3 if called == "PYRASEG" else 7)  # PS3.8 9.3.4
        assert send(images, port, title=title, called=called) == [None] * 3
    until(lambda: "'STRANGER'" in caplog.text and "'ANOTHER'" in caplog.text)
    assert inbox.complete(0) == [] and not list(inbox.folder.iterdir())
    with pytest.raises(PyrasegError, match="No AE title may call"):
        listening(peers=[])


def test_what_is_no_image_is_not_taken(listening):
    """An archive that forwards what it gets cannot send our own results here; nor is deflated data taken."""
    port = listening()
    for classes, syntax in (([SegmentationStorage], None), ([CTImageStorage], DeflatedExplicitVRLittleEndian)):
        with calling(port, classes=classes, syntax=syntax) as association:
            assert not association.accepted_contexts


@pytest.mark.parametrize("syntax", IMAGE_SYNTAXES, ids=lambda syntax: syntax.name)
def test_every_transfer_syntax_of_the_statement_is_accepted(syntax, listening):
    with calling(listening(), classes=[CTImageStorage], syntax=syntax) as association:
        assert [context.transfer_syntax for context in association.accepted_contexts] == [[syntax]]


def test_answers_to_what_cannot_be_taken(listening, tmp_path, caplog):
    (good, *_) = small_series(tmp_path, "one")
    inbox = Inbox(tmp_path / "small", Limits(objects=1))
    port = listening(inbox=inbox)
    with calling(port, classes=[CTImageStorage]) as association:
        image = pydicom.dcmread(good)
        image.StudyInstanceUID = ""
        assert association.send_c_store(image).Status == 0xC000
        image = pydicom.dcmread(good)
        assert association.send_c_store(image).Status == 0
        image.SOPInstanceUID = "1.2.3"
        assert association.send_c_store(image).Status == 0xA700
    until(lambda: "(A700H)" in caplog.text and "(C000H)" in caplog.text)
    for secret in ("Secret", "SECRET-ID", str(image.PatientName), str(image.PatientID)):
        assert secret not in caplog.text


def test_a_large_object_is_broken_off(listening, tmp_path, caplog):
    (file, *_) = small_series(tmp_path, "one")
    inbox = Inbox(tmp_path / "small", Limits(object_bytes=50_000))
    port = listening(inbox=inbox)
    image = pydicom.dcmread(file)
    with calling(port, classes=[CTImageStorage]) as association:
        assert association.send_c_store(image).Status == 0
        assert association.send_c_store(image).Status == 0  # each by itself
        image.PixelData = bytes(200_000)
        assert "Status" not in association.send_c_store(image)
        until(lambda: association.is_aborted)
    assert "larger than may be" in caplog.text
    assert send([file], port) == [0]


def test_a_pdu_that_is_announced_too_long_ends_the_connection(listening):
    """A stranger could have 4 GB read otherwise, before anybody asks who it is."""
    port = listening()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(struct.pack(">BBL", 1, 0, MOST_BYTES_OF_A_PDU + 1))
        assert caller.recv(100) == b""
    with calling(port) as association:
        assert association.is_established


def test_tls_with_a_certificate_of_ours_and_none_without(inbox, listening, tmp_path, caplog):
    ours = authority(tmp_path / "ours")
    others = authority(tmp_path / "others")
    node, peer = signed(tmp_path / "ours", "node", ours), signed(tmp_path / "ours", "peer", ours)
    port = listening(tls=node.for_callers())
    images = small_series(tmp_path, "one")

    silent = socket.create_connection(("127.0.0.1", port))  # who says nothing keeps nobody out
    assert send(images, port, tls=peer.for_calling()) == [0, 0, 0]
    silent.close()

    stranger = replace(signed(tmp_path / "others", "stranger", others), authority=ours[0])
    nobody = ssl.create_default_context(cafile=str(ours[0]))
    old = peer.for_calling()
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    for refused in (stranger.for_calling(), nobody, old, None):
        assert send(images, port, tls=refused) == [None] * 3
    until(lambda: caplog.text.count("no TLS, or not by a certificate that is trusted") >= 4)
    with calling(port, tls=peer.for_calling()) as association:
        assert association.is_established
    with calling(port, tls=peer.for_calling(), title="STRANGER") as association:
        assert association.is_rejected  # a certificate is no AE title

    open_port = listening(tls=replace(node, authority=None).for_callers())
    assert send(images, open_port, tls=nobody) == [0, 0, 0]  # where no certificate is asked for
    assert send(images, open_port) == [None] * 3


def test_files_of_tls_that_cannot_be(tmp_path):
    ours = authority(tmp_path)
    node = signed(tmp_path, "node", ours)
    for wrong in (
        replace(node, key=ours[1]),
        replace(node, certificate=tmp_path / "none.pem"),
        replace(node, authority=node.key),
    ):
        with pytest.raises(PyrasegError, match="Give PEM files"):
            wrong.for_callers()


def test_commitment_reports_are_taken_from_whom_provides_them_alone(listening):
    with calling(listening(), classes=[StorageCommitmentPushModel, Verification], title="ARCHIVE") as association:
        (context,) = [one for one in association.accepted_contexts if one.abstract_syntax != Verification] or [None]
        assert context is None or not context.as_scp


def test_an_address_that_is_not_ours(listening):
    port = listening()
    with pytest.raises(PyrasegError, match=f"Nothing can be received at 127.0.0.1, port {port}"):
        listening(address=("127.0.0.1", port))
    with pytest.raises(PyrasegError, match=r"Nothing can be received at 192\.0\.2\.1"):
        listening(address=("192.0.2.1", 0))


def test_many_at_a_time(inbox, listening, tmp_path):
    """More than may be are refused for the moment, and the others are served."""
    port = listening()
    held = [calling(port) for _ in range(12)]
    opened = [one.__enter__() for one in held]
    try:
        assert sum(one.is_established for one in opened) == 10
        assert all(one.acceptor.primitive.result == 2 for one in opened if not one.is_established)  # passing
    finally:
        for one in held:
            one.__exit__(None, None, None)
    time.sleep(0.2)
    with calling(port) as association:
        assert association.is_established

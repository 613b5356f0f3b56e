# SPDX-License-Identifier: Apache-2.0
"""`pyraseg pacs listen` between programs of others: Orthanc, and storescu and storescp of dcmtk, on this machine."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import numpy as np
import pydicom
import pytest

from bundle.pyraseg_tools.datasets.phantom.cases import phantom_case
from bundle.pyraseg_tools.datasets.phantom.dicom_writer import write_series as write_phantom
from tests.helpers import dicom_files as files
from tests.helpers import orthanc
from tests.helpers.authority import authority, signed
from tests.helpers.dcmtk import dcmtk
from tests.helpers.dimse_nodes import free_port, until
from tests.helpers.orthanc import Orthanc
from tests.helpers.pacs_series import small_series
from tests.tools.pacs.conftest import model as model

pytestmark = pytest.mark.slow  # a process that starts takes seconds
ROOT = Path(__file__).resolve().parents[3]
#: In words of dcmtk: the syntax of the phantom that is JPEG 2000.
PHANTOMS = {"plain": (0, ()), "tilted": (4, ()), "multi-frame": (6, ()), "JPEG 2000": (8, ("-xv",))}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def dicom_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory, port, dicom_port) -> Iterator[Orthanc]:
    """Return Orthanc, which knows the listener."""
    settings = {
        "DicomServerEnabled": True,
        "DicomAet": "ORTHANC",
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": True,
        "DicomModalities": {
            "pyraseg": {"AET": "PYRASEG", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
        },
    }
    with orthanc.running(tmp_path_factory.mktemp("orthanc"), **settings) as running:
        yield running


@pytest.fixture
def pacs(server) -> Orthanc:
    server.remove()
    return server


@contextmanager
def listening(model, work: Path, port: int, *more: str) -> Iterator[subprocess.Popen]:
    """Run the program; it is killed at the end."""
    own = ["--port", str(port), "--work-dir", str(work), "--threads", "1", "--unlike", "ignore", "--peer", "CT1"]
    command = [sys.executable, "-u", "-m", "bundle.pyraseg", "pacs", "listen", str(model.path), *own, *more]
    with (work.parent / "log.txt").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def said(work: Path) -> str:
    return (work.parent / "log.txt").read_text()


def storescu(folder: Path, port: int, *more: str, title: str = "CT1") -> int:
    """Send a folder with dcmtk, and return its exit code."""
    names = ["-aet", title, "-aec", "PYRASEG"]
    command = [dcmtk("storescu"), *names, "-nh", "-to", "5", "+sd", *more, "127.0.0.1", str(port), str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def sent(folder: Path, port: int, *more: str) -> None:
    """Send a folder as a scanner does: again, until it has arrived."""
    until(lambda: storescu(folder, port, *more) == 0 or time.sleep(0.3))


def to(dicom_port: int) -> list[str]:
    return ["--to", f"ORTHANC@127.0.0.1:{dicom_port}", "--plain", "both"]


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_study_from_a_scanner_is_segmented_in_the_pacs(name, pacs, model, port, dicom_port, tmp_path):
    """By C-STORE there and back, and Orthanc vouches for it; the voxels are those of the bundle's own inference."""
    number, syntax = PHANTOMS[name]
    source = tmp_path / "source"
    write_phantom(source, phantom_case(1, number, size=36), seed=1, number=number)
    work = tmp_path / "work"
    with listening(model, work, port, *to(dicom_port), "--quiet", "1", "--commitment", "required"):
        sent(source, port, *syntax)
        until(lambda: "stored and committed by ORTHANC" in said(work))
        until(lambda: not list(work.rglob("*.dcm")))
    (identifier,) = pacs.instances(Modality="SEG")
    pacs.read(identifier, tmp_path / "seg.dcm")
    images = [pydicom.dcmread(file) for file in source.iterdir()]
    assert np.array_equal(_stored(hd.seg.segread(tmp_path / "seg.dcm"), images), model.truth(str(source)))
    for secret in (str(images[0].PatientName), str(images[0].PatientID)):
        assert secret not in said(work) + (work / "journal.json").read_text()


def test_report_and_capture_lie_in_the_pacs_beside_the_segmentation(pacs, port, dicom_port, tmp_path):
    """Weights make every output; the report is about the very segmentation that Orthanc holds, and its volumes are."""
    source, work = tmp_path / "source", tmp_path / "work"
    write_phantom(source, phantom_case(1, 0, size=36), seed=1, number=0)
    weights = SimpleNamespace(path=ROOT / "models" / "phantom.pt")
    with listening(weights, work, port, *to(dicom_port), "--quiet", "1", "--outputs", "seg,sr,capture"):
        sent(source, port)
        until(lambda: len(pacs.instances(Modality="OT")) == 1 and not list(work.rglob("*.dcm")), seconds=120)
    found = {}
    for modality in ("SEG", "SR", "OT"):
        (identifier,) = pacs.instances(Modality=modality)
        pacs.read(identifier, tmp_path / f"{modality}.dcm")
        found[modality] = pydicom.dcmread(tmp_path / f"{modality}.dcm")
    groups = hd.sr.srread(tmp_path / "SR.dcm").content.get_volumetric_roi_measurement_groups()
    segmentation = hd.seg.segread(tmp_path / "SEG.dcm")
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    size = float(np.prod([*measures.PixelSpacing, measures.SliceThickness], dtype=float))
    assert groups
    for group in groups:
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        (number,) = segment.referenced_segment_numbers
        frames = [
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
            for frame in segmentation.PerFrameFunctionalGroupsSequence
        ]
        (volume,) = group.get_measurements(name=hd.sr.CodedConcept("118565006", "SCT", "Volume"))
        assert volume.value == pytest.approx(np.count_nonzero(segmentation.pixel_array[frames]) * size, rel=1e-6)
    assert found["OT"].SOPClassUID == pydicom.uid.MultiFrameTrueColorSecondaryCaptureImageStorage
    assert {one.StudyInstanceUID for one in found.values()} == {segmentation.StudyInstanceUID}


def _stored(seg: hd.seg.Segmentation, images: list[pydicom.Dataset]) -> np.ndarray:
    """Return the label map as highdicom reads it, along the normal."""
    options = {"combine_segments": True, "ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
    if "PerFrameFunctionalGroupsSequence" in images[0]:
        numbers = range(1, len(images[0].PerFrameFunctionalGroupsSequence) + 1)
        uid = images[0].SOPInstanceUID
        pixels = seg.get_pixels_by_source_frame(source_sop_instance_uid=uid, source_frame_numbers=numbers, **options)
        groups = images[0].PerFrameFunctionalGroupsSequence
        places = [group.PlanePositionSequence[0].ImagePositionPatient for group in groups]
        shared = images[0].SharedFunctionalGroupsSequence[0]
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    else:
        uids = [image.SOPInstanceUID for image in images]
        pixels = seg.get_pixels_by_source_instance(source_sop_instance_uids=uids, **options)
        places = [image.ImagePositionPatient for image in images]
        orientation = images[0].ImageOrientationPatient
    normal = np.cross(*np.reshape(orientation, (2, 3)).astype(float))
    return pixels[np.argsort(np.array(places, float) @ normal)]


def test_a_study_that_orthanc_has_is_fetched(pacs, model, port, dicom_port, tmp_path):
    pacs.add(small_series(tmp_path, "one"))
    pacs.add(small_series(tmp_path, "other"))
    work = tmp_path / "work"
    with listening(model, work, port, *to(dicom_port), "--fetch", files.uid("study", "one"), "--once") as process:
        assert process.wait(100) == 0, said(work)
    assert len(pacs.instances(Modality="SEG", StudyInstanceUID=files.uid("study", "one"))) == 1
    assert len(pacs.instances(Modality="SEG")) == 1


def test_killed_at_ten_random_moments(pacs, model, port, dicom_port, tmp_path):
    """Four studies, one process after the other: each series has one segmentation at the end, and nothing is left."""
    work, names = tmp_path / "work", ("a", "b", "c", "d")
    for name in names:
        small_series(tmp_path / "studies", name, slices=12)
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    options = [*to(dicom_port), "--quiet", "4", "--retry", "1"]
    waiting = list(names)
    for _ in range(10):
        with listening(model, work, port, *options):
            if waiting:
                sent(tmp_path / "studies" / waiting.pop(), port)
            else:
                until(lambda: "listens at" in said(work))
            time.sleep(moments.uniform(0, 8))
    with listening(model, work, port, *options):
        until(lambda: len(pacs.instances(Modality="SEG")) >= len(names), 120)
        until(lambda: not list(work.rglob("*.dcm")), 120)
        time.sleep(6)
    for name in names:
        assert len(pacs.instances(Modality="SEG", StudyInstanceUID=files.uid("study", name))) == 1, f"seed {seed}"
    assert len(pacs.instances(Modality="SEG")) == len(names)


def test_storescu_is_let_in_by_its_name_and_its_certificate(model, tmp_path):
    ours, others = authority(tmp_path / "ours"), authority(tmp_path / "others")
    node, scanner = (signed(tmp_path / "ours", name, ours) for name in ("node", "scanner"))
    stranger = signed(tmp_path / "others", "stranger", others)
    source = small_series(tmp_path, "one")[0].parent
    files_of_tls = ["--tls-certificate", node.certificate, "--tls-key", node.key, "--tls-authority", node.authority]
    port, work = free_port(), tmp_path / "work"
    known = ["+tls", str(scanner.key), str(scanner.certificate), "+cf", str(ours[0])]
    with listening(model, work, port, *map(str, files_of_tls), "--to", "NOBODY@localhost:1", "--quiet", "500"):
        sent(source, port, *known)
        received = sorted((work / "received").rglob("*.dcm"))
        assert len(received) == 3
        assert storescu(source, port, *known, title="STRANGER") != 0
        assert storescu(source, port) != 0
        assert storescu(source, port, "+tla", "+cf", str(ours[0])) != 0
        assert storescu(source, port, "+tls", str(stranger.key), str(stranger.certificate), "+cf", str(ours[0])) != 0
    assert "'STRANGER'" in said(work) and "no TLS, or not by a certificate" in said(work)


@pytest.mark.parametrize("by_tls", [False, True], ids=["plain", "TLS"])
def test_storescp_gets_the_results(by_tls: bool, model, tmp_path):
    small_series(tmp_path, "one")
    ours = authority(tmp_path / "ours")
    node, archive = (signed(tmp_path / "ours", name, ours) for name in ("node", "archive"))
    port, target, work = free_port(), free_port(), tmp_path / "work"
    (tmp_path / "stored").mkdir()
    tls = ["+tls", str(archive.key), str(archive.certificate), "+cf", str(ours[0])] if by_tls else []
    command = [dcmtk("storescp"), *tls, "-aet", "STORE", "-od", str(tmp_path / "stored"), "--fork", str(target)]
    own = ["--tls-certificate", node.certificate, "--tls-key", node.key, "--tls-authority", ours[0]]
    more = [*map(str, own), "--plain", "receive"] if by_tls else ["--plain", "both"]
    with subprocess.Popen(command) as process:
        try:
            with listening(model, work, port, "--to", f"STORE@localhost:{target}", "--quiet", "1", *more):
                sent(tmp_path / "one", port)
                until(lambda: "stored by STORE" in said(work))
        finally:
            process.terminate()
    (file,) = (tmp_path / "stored").iterdir()
    assert pydicom.dcmread(file).Modality == "SEG"

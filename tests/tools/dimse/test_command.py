# SPDX-License-Identifier: Apache-2.0
"""`pyraseg pacs listen` with an exported model: a study that is fetched comes back as `inferring` writes it."""

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.commands.pacs import main
from bundle.pyraseg_tools.datasets.phantom.cases import phantom_case
from bundle.pyraseg_tools.datasets.phantom.dicom_writer import write_series as write_phantom
from bundle.pyraseg_tools.pacs import PacsError
from tests.helpers import dicom_files as files
from tests.helpers.console import restore_console as restore_console
from tests.helpers.dimse_nodes import free_port
from tests.helpers.pacs_series import small_series
from tests.tools.pacs.conftest import model as model

ROOT = Path(__file__).resolve().parents[3]
STUDY = files.uid("study", "one")


@pytest.fixture
def arguments(archive, model, tmp_path) -> Callable[..., list[str]]:
    def make(*more: str) -> list[str]:
        port = free_port()
        archive.where = "PYRASEG", port
        others = ["--to", f"ARCHIVE@127.0.0.1:{archive.port}", "--peer", "CT1", "--plain", "both"]
        own = ["--port", str(port), "--work-dir", str(tmp_path / "work"), "--threads", "1", "--unlike", "ignore"]
        return ["listen", str(model.path), *own, *others, *more]

    return make


def test_a_study_that_is_fetched(archive, arguments, model, tmp_path, capsys, caplog):
    archive.images = small_series(tmp_path, "one") + small_series(tmp_path, "two")
    main(arguments("--fetch", STUDY, "--once"))
    assert "The results of 1 series have arrived" in capsys.readouterr().out
    (stored,) = archive.stored
    assert stored.StudyInstanceUID == STUDY
    stored.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    truth = model.truth(str(tmp_path / "one"))  # the bundle's own inference in PyTorch
    uids = [one.SOPInstanceUID for one in _along_the_normal(tmp_path / "one")]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    assert len(np.unique(truth)) > 1 and np.array_equal(found, truth)
    assert not list((tmp_path / "work").rglob("*.dcm"))


def _along_the_normal(folder: Path) -> list:
    return sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda image: image.ImagePositionPatient[2])


def test_what_cannot_be_fetched(archive, arguments, tmp_path):
    archive.images = small_series(tmp_path, "one")
    with pytest.raises(PyrasegError, match="StudyInstanceUID is no UID"):
        main(arguments("--fetch", "../1", "--once"))
    with pytest.raises(PacsError, match=r"has 0 series in the study 1\.2\.3"):
        main(arguments("--fetch", "1.2.3", "--once"))
    with pytest.raises(PacsError, match="none of them is wanted"):
        main(arguments("--fetch", STUDY, "--once", "--modality", "MR"))
    with pytest.raises(PacsError, match="does not know where ANOTHER is"):
        main(arguments("--fetch", STUDY, "--once", "--title", "ANOTHER"))
    archive.missing = 1
    with pytest.raises(PacsError, match=r"lists 3 images of the series .* and sent 2"):
        main(arguments("--fetch", STUDY, "--once"))
    assert not archive.stored


def test_what_is_refused_before_anything_is_heard(arguments, tmp_path, capsys):
    for words, text in (
        (["--plain", "send"], "Images would go without encryption"),
        (["--to", "PACS:104"], "names no DICOM node"),
        (["--peer", "a\\b"], "is no AE title"),
        (["--outputs", "seg,sr"], "An ONNX model makes seg alone"),
    ):
        with pytest.raises(PyrasegError, match=text):
            main(arguments(*words))
    for words, text in ((["--quiet", "0"], "--quiet is more than 0"), (["--tls-key", "x"], "belong together")):
        with pytest.raises(SystemExit):
            main(arguments(*words))
        assert text in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_weights_that_pytorch_runs_and_every_object_they_write(archive, arguments, tmp_path):
    write_phantom(tmp_path / "one", phantom_case(1, 0, size=36), seed=1, number=0)
    archive.images = list((tmp_path / "one").iterdir())
    study = pydicom.dcmread(archive.images[0]).StudyInstanceUID
    words = arguments("--fetch", study, "--once", "--outputs", "sr,rtstruct,capture")
    main([words[0], str(ROOT / "models" / "phantom.pt"), *words[2:]])
    assert sorted(one.Modality for one in archive.stored) == ["OT", "RTSTRUCT", "SEG", "SR"]
    assert not list((tmp_path / "work").rglob("*.dcm"))
    weights = tmp_path / "lungs.pt"
    weights.write_bytes(b"no weights")
    words = arguments("--fetch", study, "--once", "--outputs", "sr,rtstruct,capture")
    with pytest.raises(PyrasegError, match="1 series have none"):
        main([words[0], str(weights), *words[2:]])
    assert "lungs.pt" in (tmp_path / "work" / "journal.json").read_text()

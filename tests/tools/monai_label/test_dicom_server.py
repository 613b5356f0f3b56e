# SPDX-License-Identifier: Apache-2.0
"""A real MONAI Label server on DICOM series, in a real PACS and in a folder: segmented, labeled and trained on."""

import json
import shutil
import urllib.error
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import VLPhotographicImageStorage

from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.reading import read_dicom_label
from bundle.pyraseg.labels.references import ImageGrid
from bundle.pyraseg.transforms.label import LabelReader
from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers import dicom_files as files
from tests.helpers import orthanc
from tests.helpers.drawn_photographs import draw
from tests.helpers.label_server import Server, needs_server, on_pacs, own_inference, served, write_foreign
from tests.helpers.orthanc import Orthanc

pytestmark = needs_server


@dataclass(frozen=True)
class Case:
    """An image that lies in the PACS, and what is true of it: (N, rows, columns)."""

    folder: Path
    truth: np.ndarray

    @property
    def uid(self) -> str:
        return read_series(self.folder).series_uid


class Folder:
    """A folder of series, asked as a PACS is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, files: Iterable[Path]) -> None:
        for file in files:
            copy = self.path / file.parent.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)

    def instances(self, Modality: str = "SEG", SOPInstanceUID: str = "*") -> list[Path]:
        return list((self.path / "labels").glob(f"{SOPInstanceUID}.dcm"))

    def read(self, identifier: Path, path: Path) -> Dataset:
        shutil.copy(identifier, path)
        return pydicom.dcmread(path)


def walk(
    server: Server, pacs: Orthanc | Folder, name: str, cases: Sequence[Case], turn: int, own: np.ndarray, folder: Path,
    decode: Callable[[bytes], np.ndarray], encode: Callable[[Case], Path],
) -> None:  # fmt: skip
    """Do what an annotator does; at every turn one more of the last cases is labeled."""
    info = server.info()
    names = ["background", *info["models"][name]["labels"]]
    labeled = [*cases[:2], *cases[2 : 2 + turn]]
    assert info["datastore"]["total"] == len(cases)
    assert info["datastore"]["completed"] == (0 if turn == 0 else len(labeled) - 1)

    first = cases[0]
    np.testing.assert_array_equal(decode(server.infer(name, first.uid)), own)
    before = set(pacs.instances(Modality="SEG"))
    server.infer(name, first.uid, save_label=True, label_tag="final")
    (stored,) = set(pacs.instances(Modality="SEG")) - before
    header = pacs.read(stored, folder / "own.dcm")
    assert {item.SegmentAlgorithmType for item in header.SegmentSequence} == {"AUTOMATIC"}
    np.testing.assert_array_equal(read_back(folder / "own.dcm", first, names), own)
    assert server.info()["datastore"]["completed"] == info["datastore"]["completed"]  # nobody has looked at it

    for case in labeled if turn == 0 else labeled[-1:]:
        segments = [{"name": name, "idx": index} for index, name in enumerate(names) if index]
        label = server.put_label(case.uid, encode(case), label_info=segments)
        (found,) = pacs.instances(SOPInstanceUID=label)
        header = pacs.read(found, folder / "label.dcm")
        assert {item.SegmentAlgorithmType for item in header.SegmentSequence} == {"SEMIAUTOMATIC"}
        assert [item.SegmentLabel for item in header.SegmentSequence] == names[1:]
        np.testing.assert_array_equal(read_back(folder / "label.dcm", case, names), case.truth)
    assert server.info()["datastore"]["completed"] == len(labeled)

    told = server.run("/train/", f"/train/{name}", max_epochs=1, val_split=0.5)
    assert "it is served now" in told or "the model stays as it is" in told
    server.run("/scoring/", f"/scoring/{name}", simulation_size=2)
    sample = json.loads(server.ask("POST", "/activelearning/epistemic"))
    assert sample["id"] in {case.uid for case in cases[len(labeled) :]} and sample["epistemic_entropy"] > 0
    server.run("/batch/infer", f"/batch/infer/{name}?images=unlabeled")
    objects = json.loads(server.ask("GET", "/datastore/?output=all"))["objects"]
    assert all("original" in objects[case.uid] for case in cases[len(labeled) :])
    bright = folder / "bright.nii.gz"
    bright.write_bytes(server.infer("threshold_segmentation", first.uid, result_extension=".nii.gz"))
    assert nibabel.load(bright).get_fdata().any()


def read_back(path: Path, case: Case, names: Sequence[str]) -> np.ndarray:
    return read_dicom_label(path, ImageGrid.of(read_series(case.folder)), ClassTable(names))


def refused(server: Server, image: str, label: Path, **params: object) -> str:
    with pytest.raises(urllib.error.HTTPError) as error:
        server.put_label(image, label, **params)
    return json.loads(error.value.read())["detail"]


@pytest.mark.parametrize("place", ["pacs", "folder"])
def test_volumes(place, volume_package, request, tmp_path):
    if place == "pacs":
        pacs = request.getfixturevalue("pacs")
        where = on_pacs(pacs, "CT")
    else:
        pacs = Folder(tmp_path / "series")
        where = {"studies": str(pacs.path), "samples": 32}
    name, app = "pyraseg_phantom", tmp_path / "app"
    write_phantom_study(tmp_path / "study", patients=5, size=48)
    datalist = json.loads((tmp_path / "study" / "datalist.json").read_text())
    reader = LabelReader(class_names=["background", "liver", "lesion", "spleen", "kidney"])
    cases = []
    for item in [item for part in ("training", "validation", "test") for item in datalist[part]]:
        folder = tmp_path / "study" / item["image"]
        truth = reader.read(tmp_path / "study" / item["label"], read_series(folder)).transpose(2, 1, 0)
        cases.append(Case(folder, truth))
        pacs.add(folder.iterdir())

    twice = np.zeros((2, 8, 8), np.int16)  # two slices in one place: no volume
    uids = {"StudyInstanceUID": files.uid("study", "broken"), "SeriesInstanceUID": files.uid("series", "broken")}
    pacs.add(files.write_series(tmp_path / "broken" / "ct", twice, slice_step=0.0, **uids))
    if place == "folder":  # a path in place of a UID: not served
        way_out = {"StudyInstanceUID": files.uid("study", "out"), "SeriesInstanceUID": "../../../out"}
        pacs.add(files.write_series(tmp_path / "out" / "ct", np.zeros((3, 8, 8), np.int16), **way_out))

    def decode(answer: bytes) -> np.ndarray:
        (tmp_path / "answer.nii.gz").write_bytes(answer)
        return np.asarray(nibabel.load(tmp_path / "answer.nii.gz").dataobj).transpose(2, 1, 0)

    def encode(case: Case) -> Path:
        """Write a label as 3D Slicer does: on the grid of the image that it has got."""
        image = nibabel.load(app / "dicom" / case.uid / f"{case.uid}.nii.gz")
        path = tmp_path / "label.nii.gz"
        nibabel.save(nibabel.Nifti1Image(case.truth.transpose(2, 1, 0), image.affine), path)
        return path

    own = decode(next(own_inference(volume_package, cases[0].folder, tmp_path).glob("*.nii.gz")).read_bytes())
    assert own.any()
    for turn in range(2):
        with served([volume_package, write_foreign(tmp_path / str(turn))], app=app, **where) as server:
            with pytest.raises(urllib.error.HTTPError) as error:  # after that it is not handed out
                server.ask("GET", f"/datastore/image?image={uids['SeriesInstanceUID']}")
            assert "stored twice?" in json.loads(error.value.read())["detail"]
            for case in cases:  # one of them is tilted
                answer, image = tmp_path / "answer.nii.gz", tmp_path / "image.nii.gz"
                image.write_bytes(server.ask("GET", f"/datastore/image?image={case.uid}"))
                answer.write_bytes(server.infer(name, case.uid))
                np.testing.assert_allclose(nibabel.load(answer).affine, nibabel.load(image).affine, atol=1e-4)
            if turn:  # the model that the first turn may have replaced
                own = decode(server.infer(name, cases[0].uid))
            walk(server, pacs, name, cases, turn, own, tmp_path, decode, encode)
            label = encode(cases[0])
            strange = [
                {"name": name, "idx": index} for index, name in enumerate(["liver", "cyst", "spleen", "kidney"], 1)
            ]
            assert "cyst" in refused(server, cases[0].uid, label, label_info=strange)
            assert "one of 'original', 'final'" in refused(server, cases[0].uid, label, tag="../../out")
            other = next(case for case in cases if case.truth.shape != cases[0].truth.shape)
            assert "another size" in refused(server, other.uid, label)
    log = (app / "log.txt").read_text()
    assert orthanc.PASSWORD not in log and "phantom-01" not in log


def test_photographs(pacs, package, tmp_path):
    name, app = "pyraseg_dermoscopy", tmp_path / "app"
    cases = []
    for seed in range(5):
        draw(tmp_path / "drawn", seed, (120, 90))
        picture = np.asarray(Image.open(tmp_path / "drawn" / "images" / f"c{seed}.jpg"))
        mask = np.asarray(Image.open(tmp_path / "drawn" / "masks" / f"c{seed}_segmentation.png"))
        photograph = files.make_image(
            picture.tobytes(), SOPClassUID=VLPhotographicImageStorage, Modality="XC", SamplesPerPixel=3,
            PhotometricInterpretation="RGB", PlanarConfiguration=0, Rows=90, Columns=120, FrameOfReferenceUID=None,
            StudyInstanceUID=files.uid("study", seed), SeriesInstanceUID=files.uid("series", seed),
            PatientID=f"SECRET-{seed}",
        )  # fmt: skip
        folder = tmp_path / "photographs" / str(seed)
        pacs.add([files.save(photograph, folder / "photograph.dcm")])
        cases.append(Case(folder, (mask[None] > 0).astype(np.uint8)))

    def decode(answer: bytes) -> np.ndarray:
        (tmp_path / "answer.png").write_bytes(answer)
        return np.asarray(Image.open(tmp_path / "answer.png"))[None]

    def encode(case: Case) -> Path:
        path = tmp_path / "label.png"
        Image.fromarray(case.truth[0]).save(path)
        return path

    own = decode(next(own_inference(package.zip, cases[0].folder, tmp_path).glob("*.png")).read_bytes())
    assert own.any()
    for turn in range(2):
        with served([package.zip, write_foreign(tmp_path / str(turn))], app=app, **on_pacs(pacs, "XC")) as server:
            if turn:
                own = decode(server.infer(name, cases[0].uid))
            walk(server, pacs, name, cases, turn, own, tmp_path, decode, encode)
    log = (app / "log.txt").read_text()
    assert "SECRET" not in log and orthanc.PASSWORD not in log

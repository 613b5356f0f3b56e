# SPDX-License-Identifier: Apache-2.0
"""Labels that clients submit for files of a folder keep place and meaning, however the header of the image says it."""

import json
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.helpers.commands import ROOT
from tests.helpers.label_server import PYTHON

TRUTH = np.zeros((9, 8, 6), np.uint8)
TRUTH[2:6, 3:7, 1:5] = 1
TRUTH[3:5, 4:6, 2] = 2
PLAIN = np.diag([0.9, 0.8, 3, 1])
TILTED = PLAIN + np.array([[0] * 4, [0, 0, 0.7, 0], [0] * 4, [0] * 4])
STORE = """
import json, sys
from bundle.pyraseg.labels import ClassTable
from bundle.pyraseg_tools.monai_label.classes import Task
from bundle.pyraseg_tools.monai_label.folder_datastore import FolderDatastore

folder, labels = sys.argv[1], json.loads(sys.argv[2])
task = Task("task", ClassTable(["background", "liver", "lesion"]), {}, None)
store = FolderDatastore([task], folder, extensions=["*.nii.gz"], auto_reload=False)
for image, (label, names) in labels.items():
    store.save_label(image, label, "final", {"label_info": names})
"""


def no_form(header: nibabel.Nifti1Header) -> None:
    header["sform_code"] = header["qform_code"] = 0


def two_forms(header: nibabel.Nifti1Header) -> None:
    header.set_qform(PLAIN, 1)
    header.set_sform(np.diag([-1.0, -1, 1, 1]), 1)


def micrometers(header: nibabel.Nifti1Header) -> None:
    header.set_sform(np.diag([1000, 1000, 1000, 1]) @ PLAIN, 1)
    header["pixdim"][1:4] = 900, 800, 3000
    header.set_xyzt_units("micron")


def save(values: np.ndarray, header: nibabel.Nifti1Header, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, None, header), path)
    return str(path)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-label with MONAI Label: make label")
def test_the_numbers_of_a_client_become_classes_where_the_image_lies(tmp_path: Path) -> None:
    names = [{"name": "lesion", "idx": 1}, {"name": "liver", "idx": 2}]
    numbers = np.array([0, 2, 1], np.uint8)[TRUTH]
    headers = {name: nibabel.Nifti1Image(TRUTH, PLAIN).header for name in ("plain", "none", "two", "micrometers")}
    headers["tilted"] = nibabel.Nifti1Image(TRUTH, TILTED).header
    for name, change in (("none", no_form), ("two", two_forms), ("micrometers", micrometers)):
        change(headers[name])
    labels = {}
    for name, header in headers.items():
        save(100 * TRUTH, header, tmp_path / "images" / f"{name}.nii.gz")
        labels[name] = save(numbers, header, tmp_path / "submitted" / f"{name}.nii.gz"), names
    save(100 * TRUTH, headers["plain"], tmp_path / "images" / "slicer.nii.gz")
    fields = "Segment0_ID:=a\nSegment0_Name:=lesion\nSegment0_LabelValue:=1\nSegment0_Layer:=0\n"
    fields += fields.replace("Segment0", "Segment1").replace("lesion", "liver").replace("Value:=1", "Value:=2")
    text = (
        "NRRD0004\ntype: uint8\ndimension: 3\nspace: RAS\nsizes: 9 8 6\nencoding: raw\n"
        f"space directions: (0.9,0,0) (0,0.8,0) (0,0,3)\nspace origin: (0,0,0)\n{fields}\n"
    )
    (tmp_path / "submitted" / "slicer.seg.nrrd").write_bytes(text.encode() + numbers.tobytes(order="F"))
    labels["slicer"] = str(tmp_path / "submitted" / "slicer.seg.nrrd"), []
    command = [str(PYTHON), "-c", STORE, str(tmp_path / "images"), json.dumps(labels)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=300)
    for name in labels:
        stored = nibabel.load(tmp_path / "images" / "labels" / "final" / f"{name}.nii.gz")
        image = nibabel.load(tmp_path / "images" / f"{name}.nii.gz").header
        assert np.array_equal(stored.dataobj, TRUTH), name
        for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "pixdim", "xyzt_units"):
            assert np.array_equal(stored.header[field], image[field]), (name, field)

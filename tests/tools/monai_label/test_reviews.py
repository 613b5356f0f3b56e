# SPDX-License-Identifier: Apache-2.0
"""What people make of results in a real label server is stored, and corrections name the model that they began with."""

import hashlib
import json
import subprocess
import urllib.error
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.commands.console import main
from bundle.pyraseg.datalists.pairing import find_pairs
from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.label_server import PYTHON, needs_server, served

pytestmark = needs_server
NAME = "pyraseg_phantom"
#: What the extension of 3D Slicer does to submit a label.
CLIENT = """
import sys
from monailabel.client import MONAILabelClient

url, image, label = sys.argv[1:]
print(MONAILabelClient(url, client_id="reader").save_label(image, label, params={"label_info": []})["label"])
"""


def test_decisions_in_the_server(volume_package, tmp_path):
    write_phantom_study(tmp_path / "study", patients=4, size=48)
    scan = tmp_path / "study" / json.loads((tmp_path / "study" / "datalist.json").read_text())["training"][0]["image"]
    studies, app = tmp_path / "series", tmp_path / "app"
    (studies / "scan").mkdir(parents=True)
    for file in scan.iterdir():
        (studies / "scan" / file.name).write_bytes(file.read_bytes())
    header = pydicom.dcmread(next((studies / "scan").iterdir()))
    uid = str(header.SeriesInstanceUID)

    def decide(**content):
        return json.loads(server.ask("PUT", f"/datastore/review?image={uid}", json.dumps(content).encode()))

    def refused(ask) -> str:
        with pytest.raises(urllib.error.HTTPError) as error:
            ask()
        return json.loads(error.value.read())["detail"]

    def stored() -> list[dict]:
        return [json.loads(line) for line in (app / "reviews.jsonl").read_text().splitlines()]

    def submit(labels: np.ndarray, **params) -> pydicom.Dataset:
        nibabel.save(nibabel.Nifti1Image(labels, own.affine), tmp_path / "label.nii.gz")
        label = server.put_label(uid, tmp_path / "label.nii.gz", **params)
        return pydicom.dcmread(studies / "labels" / f"{label}.dcm")

    with served([volume_package], studies, app, samples=8, options=["--reviewer", "ward"]) as server:
        assert "Ask for an inference first" in refused(lambda: decide(decision="accepted"))
        (tmp_path / "answer.nii.gz").write_bytes(server.infer(NAME, uid))
        own = nibabel.load(tmp_path / "answer.nii.gz")
        proposed = np.asarray(own.dataobj).astype(np.uint8)
        assert proposed.any()

        submitted = subprocess.run(
            [PYTHON, "-c", CLIENT, server.url, uid, tmp_path / "answer.nii.gz"], capture_output=True, text=True
        )
        assert submitted.returncode == 0, submitted.stderr
        accepted = pydicom.dcmread(studies / "labels" / f"{submitted.stdout.split()[-1]}.dcm")
        changed = np.where(proposed == proposed.max(), 0, proposed).astype(np.uint8)
        amended = submit(changed, client_id="user-xyz")
        digest = hashlib.sha256((app / "model" / NAME / "models" / "model.pt").read_bytes()).hexdigest()[:12]
        for label in (accepted, amended):
            for item in label.SegmentSequence:
                assert item.SegmentAlgorithmType == "SEMIAUTOMATIC" and item.SegmentAlgorithmName == NAME
                (made,) = item.SegmentationAlgorithmIdentificationSequence
                assert made.AlgorithmVersion.endswith(f"weights {digest}")
        assert server.info()["datastore"]["completed"] == 1

        assert decide(decision="rejected", reviewer="radiologist", model=NAME)["decision"] == "rejected"
        assert "accepted" in refused(lambda: decide(decision="amended"))
        assert "as the patient" in refused(lambda: decide(decision="accepted", reviewer=str(header.PatientID)))
        labels = len(list((studies / "labels").iterdir()))
        patient = str(header.PatientName)
        assert "as the patient" in refused(lambda: submit(proposed, client_id=patient))
        assert len(list((studies / "labels").iterdir())) == labels

        told = stored()
        assert [one["decision"] for one in told] == ["accepted", "amended", "rejected"]
        assert [one["reviewer"] for one in told] == ["reader", "ward", "radiologist"]
        assert len({one["result"]["uid"] for one in told}) == 1 and told[0]["result"]["series_uid"] == ""
        assert [one["correction"] for one in told] == [accepted.SOPInstanceUID, amended.SOPInstanceUID, ""]
        assert {one["manufacturer"] for one in told} == {str(header.get("Manufacturer") or "")}
        names = list(server.info()["models"][NAME]["labels"])
        dice = {}
        for value, name in enumerate(names, 1):
            both = np.sum((proposed == value) & (changed == value))
            if total := np.sum(proposed == value) + np.sum(changed == value):
                dice[name] = 2 * both / total
        assert told[1]["dice"] == pytest.approx(dice) and 0 in dice.values()

        server.infer(NAME, uid, save_label=True, label_tag="final")
        submit(proposed)
        assert stored()[-1]["result"]["series_uid"] and stored()[-1]["decision"] == "accepted"
        (result,) = [path for path in (studies / "labels").iterdir() if path.stem == stored()[-1]["result"]["uid"]]
        assert pydicom.dcmread(result).SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"

    assert main(["review", "--report", str(tmp_path / "out"), "--reviews", str(app / "reviews.jsonl")]) == 0
    assert digest in (tmp_path / "out" / "reviews.html").read_text()
    for path in list((studies / "labels").iterdir()):
        if path not in (result, studies / "labels" / f"{amended.SOPInstanceUID}.dcm"):
            path.unlink()
    ((item,),) = [find_pairs(studies)[1]]
    assert Path(item["label"]).stem == amended.SOPInstanceUID
    written = (app / "reviews.jsonl").read_text() + (app / "log.txt").read_text()
    assert str(header.PatientID) not in written and patient not in written

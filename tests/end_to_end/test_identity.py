# SPDX-License-Identifier: Apache-2.0
"""Who the patients are stays in the input: no log, report, preview or table tells a name, an ID or a date of it."""

import gzip
import json
import re
import shutil
from datetime import date, timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.uid import UID, UID_dictionary

from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.commands import config_files, monai_bundle

#: Groups of the patient, the study, the visit, the request, the procedure and the equipment, and of who made what.
GROUPS = (0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040)
TEXTS, DATES = ("PN", "LO", "SH", "LT", "ST", "UC", "UT"), ("DA", "TM", "DT")
ROOT_OF_UIDS = "1.2.276.0.99999"
#: The markers, dates also as ISO 8601 writes them; digits of a longer number are none.
MARKERS = re.compile(
    rb"MARKED|" + re.escape(ROOT_OF_UIDS.encode()) + rb"|010203\.999|(?<![\d.])1700-?[01]\d-?[0-3]\d(?:010203)?(?!\d)"
)


def identifying() -> dict[int, str]:
    """Return the VR of every element that may hold a name, an ID, a free text or a date, by tag."""
    rows = {tag: (vr, retired) for tag, (vr, _, _, retired, _) in DicomDictionary.items()}
    return {
        tag: vr for tag, (vr, retired) in rows.items() if tag >> 16 in GROUPS and not retired and vr in TEXTS + DATES
    }


def marker(number: int, vr: str) -> str:
    """Return a value that nothing else has, and that `MARKERS` finds."""
    day = date(1700, 1, 1) + timedelta(days=number)
    if vr in DATES:
        return {"DA": f"{day:%Y%m%d}", "TM": f"010203.{999999 - number}", "DT": f"{day:%Y%m%d}010203"}[vr]
    return f"MARKED{number}" + ("^MARKED" if vr == "PN" else "")


def plant(study: Path) -> None:
    """Put a marker into every identifying element and into the data list, and UIDs of our own."""
    uids: dict[str, str] = {}
    for path in study.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        for number, (tag, vr) in enumerate(identifying().items(), start=1):
            dataset.add_new(tag, vr, marker(number, vr))
            assert found(marker(number, vr).encode())
        for part in (dataset, dataset.file_meta):
            for element in part.iterall():
                if element.VR == "UI" and isinstance(element.value, UID) and element.value not in UID_dictionary:
                    element.value = uids.setdefault(element.value, f"{ROOT_OF_UIDS}.{len(uids) + 1}")
        dataset.save_as(path)
    items = json.loads((study / "datalist.json").read_text())
    for part in ("training", "validation", "test"):
        for number, item in enumerate(items[part]):
            item["patient"] = f"MARKED{part}{number}"
    (study / "datalist.json").write_text(json.dumps(items))
    assert len(identifying()) > 300 and len(uids) > 100


def found(content: bytes) -> set[str]:
    """Return the markers in a text or a file."""
    return {match.decode() for match in MARKERS.findall(content)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_tells_who_the_patients_are(tmp_path):
    study, inputs = tmp_path / "study", tmp_path / "inputs"
    write_phantom_study(study, patients=6, size=48)
    plant(study)
    for case in json.loads((study / "datalist.json").read_text())["test"]:
        shutil.copytree(study / case["image"], inputs / case["image"])
    (inputs / "cut_short").mkdir()
    broken = inputs / "cut_short" / "image.dcm"
    dataset = pydicom.dcmread(next(inputs.rglob("*.dcm")))
    dataset.SeriesInstanceUID = f"{ROOT_OF_UIDS}.0"
    dataset.save_as(broken)
    broken.write_bytes(broken.read_bytes()[:-100])
    shared = ["--num_workers", "0", "--spacing", "8", "--slice_size", "[64,64]", "--dataset_dir", str(study)]
    shared += ["--cache_dir", str(tmp_path / "cache"), "--model_file", str(tmp_path / "model.pt")]
    commands = {
        "training": [config_files("train.json"), "--epochs", "1", "--samples_per_epoch", "16", "--val_interval", "1"],
        "evaluating": [config_files("train.json", "evaluate.json"), "--training_dir", str(tmp_path / "training")],
        "inferring": [config_files("inference.json")],
    }
    for name, (configs, *options) in commands.items():
        options += ["--output_dir", str(tmp_path / name)]
        if name == "inferring":
            options += ["--dataset_dir", str(inputs), "--spacing", "8", "--model_file", str(tmp_path / "model.pt")]
        else:
            options += shared
        result = monai_bundle("run", name, "--config_file", configs, *options, cwd=tmp_path)
        told = result.stdout + result.stderr
        assert result.returncode == (1 if name == "inferring" else 0), told
        # What is said of a series that cannot be used names it by its UID: it has no other name in a folder of several.
        allowed = {ROOT_OF_UIDS} if name == "inferring" else set()
        assert found(told.encode()) <= allowed, told
    written = [path for name in commands for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert {"report.html", "scores.csv", "log.csv", "volumes.csv"} <= {path.name for path in written}
    assert {".png", ".gz", ".json", ".pt"} <= {path.suffix for path in written}
    for path in written:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        told = {ROOT_OF_UIDS} if path.name == "volumes.csv" else set()  # by which a person finds the series
        assert found(content + path.as_posix().encode()) <= told, path

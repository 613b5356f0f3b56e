# SPDX-License-Identifier: Apache-2.0
"""No value of a header reaches the console, whatever libraries warn of and other threads do to warnings meanwhile."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom.config
import pytest

from tests.helpers.dicom_files import save, write_enhanced
from tests.helpers.faulty_series import faulty_series, raw

MARKER = b"XQZMARKER"
#: Attributes of the value representations that pydicom checks, and of those that highdicom does.
PLANTED = {
    "PatientName": ("PN", MARKER), "PatientID": ("LO", MARKER + b"\xff" * 60), "PatientBirthDate": ("DA", MARKER),
    "PatientSex": ("CS", MARKER.lower()), "PatientAge": ("AS", MARKER), "PatientWeight": ("DS", MARKER),
    "StudyID": ("SH", 3 * MARKER), "StudyTime": ("TM", MARKER), "ReferringPhysicianName": ("PN", 9 * MARKER),
    "OperatorsName": ("PN", MARKER + b"=a=b=c"), "AcquisitionDateTime": ("DT", MARKER),
    "StudyInstanceUID": ("UI", MARKER), "SeriesNumber": ("IS", MARKER), "InstitutionName": ("LO", 9 * MARKER),
    "StationName": ("SH", 3 * MARKER), "SpecificCharacterSet": ("CS", b"ISO_IR 192"),
}  # fmt: skip
#: Reads, and writes about what it has read, in two threads, while others use warnings as any library may.
RUNS = """
import logging, sys, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from bundle.pyraseg.dicom import find_series, read_series, read_sources
from bundle.pyraseg.labels import SegmentClass, write_segmentation, write_structure_set

logging.basicConfig(level=logging.DEBUG)
folder, runs, stop = Path(sys.argv[1]), int(sys.argv[2]), threading.Event()

def disturb(action):
    while not stop.is_set():
        with warnings.catch_warnings():
            if action:
                warnings.simplefilter(action, DeprecationWarning)
            time.sleep(0.002)
        time.sleep(0.0015)

def run(number):
    image = read_series(find_series(folder / ("series", "frames")[number % 2]).series[0].found)
    mask = np.ones(image.pixels.shape, np.uint8)
    sources, out, options = read_sources(image.files), folder / str(number), {"frame_numbers": image.frame_numbers}
    write_segmentation(f"{out}.seg", mask, sources, [SegmentClass.organ("liver")], **options)
    write_structure_set(f"{out}.rt", mask, sources, image.geometry, ["liver"], colors=[[1, 2, 3]], algorithm=("a", "1"),
                        **options)
    for written in (f"{out}.seg", f"{out}.rt"):
        Path(written).unlink()

threads = [threading.Thread(target=disturb, args=[action]) for action in ("ignore", "always", None)]
for thread in threads:
    thread.start()
try:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(runs)))
finally:
    stop.set()
print(runs, "runs")
"""


def plant(folder: Path) -> None:
    with pydicom.config.disable_value_validation():
        for k, dataset in enumerate(faulty_series(lambda dataset: None)):
            for name, (vr, value) in PLANTED.items():
                raw(name, vr, value)(dataset)
            save(dataset, folder / "series" / f"{k}.dcm")
        positions = np.arange(3)[:, None] * [0, 0, 3.0]
        path = write_enhanced(folder / "frames" / "0.dcm", np.zeros((3, 8, 9), np.int16), positions, PatientName="A^B")
        dataset = pydicom.dcmread(path)
        for name, (vr, value) in PLANTED.items():
            raw(name, vr, value)(dataset)
        save(dataset, path)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("runs", [16, pytest.param(200, marks=pytest.mark.slow)])
def test_no_name_is_told_while_threads_change_the_filters_of_warnings(tmp_path: Path, runs: int) -> None:
    plant(tmp_path)
    done = python(RUNS, str(tmp_path), str(runs))
    assert done.returncode == 0 and f"{runs} runs" in done.stdout, done.stderr
    for told in (done.stdout, done.stderr):
        assert "MARKER" not in told.upper()
    assert "its header breaks the standard" in done.stderr  # the log is there


@pytest.mark.slow
def test_the_libraries_would_tell_names_otherwise(tmp_path: Path) -> None:
    plant(tmp_path)
    read = "import sys, pydicom; [str(element) for element in pydicom.dcmread(sys.argv[1])]"
    names = "from highdicom.valuerep import check_person_name as check; check('XQZMARKER')"
    ours = "import bundle.pyraseg.dicom.headers\n"
    assert "MARKER" in python(read, str(tmp_path / "series" / "0.dcm")).stderr and "MARKER" in python(names).stderr
    assert "MARKER" not in python(ours + names).stderr

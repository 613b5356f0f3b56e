# SPDX-License-Identifier: Apache-2.0
"""Every phase is an input of its own, with its own name and files; without PyTorch, too."""

import nibabel as nib
import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.nifti_headers import volume_count
from bundle.pyraseg.dicom.series import SeriesStream, read_series
from bundle.pyraseg.runtime.find import find_inputs
from bundle.pyraseg.runtime.listing import list_inputs
from bundle.pyraseg.transforms.reader import MedicalImageReader
from tests.helpers.dicom_files import uid, write_series
from tests.helpers.phased import STEP, trigger_times, values, write_enhanced_cine, write_phases


@pytest.fixture
def study(tmp_path):
    """Write a cine of four phases as files, one as an enhanced object, a plain series, and a NIfTI of four times."""
    write_phases(tmp_path / "cine", trigger_times)
    write_enhanced_cine(tmp_path / "enhanced.dcm", name="enhanced")
    write_series(tmp_path / "plain", values()[0], SeriesInstanceUID=uid("plain"), slice_step=STEP)
    nib.save(nib.Nifti1Image(values().T, np.diag([1.0, 1, STEP, 1])), tmp_path / "times.nii.gz")
    return tmp_path


def read(image):
    """Return the voxels of an input, (slices, rows, columns), as the bundle reads it and, of DICOM, the runtime."""
    array, meta = MedicalImageReader().get_data([image] if isinstance(image, str) else image)
    if not isinstance(image, str):
        np.testing.assert_array_equal(list(SeriesStream(image).slices()), np.asarray(array).T)
    return np.asarray(array).T, meta.get("phase")


def test_all_phases(study):
    items = {item["name"]: item for item in find_inputs(study, phase="all")}
    names = [f"{name}_phase{n:02d}" for name in ("cine", "enhanced", "times") for n in range(1, 5)]
    assert sorted(items) == sorted([*names, "plain"])
    for name in names:
        number = int(name[-1])
        found, phase = read(items[name]["image"])
        np.testing.assert_array_equal(found, values()[number - 1])
        assert phase == number
    np.testing.assert_array_equal(read(items["plain"]["image"])[0], values()[0])
    assert read(items["plain"]["image"])[1] is None
    own = [{str(file) for file in items[f"cine_phase{n:02d}"]["image"]} for n in range(1, 5)]
    assert len(set.union(*own)) == sum(map(len, own)) == 12  # no file is of two phases


def test_one_phase(study):
    items = find_inputs(study, phase=3)
    assert [item["name"] for item in items] == ["cine_phase03", "enhanced_phase03", "plain", "times_phase03"]
    assert [item["name"] for item in find_inputs(study, phase=3, series=uid("case"))] == ["cine_phase03"]
    with pytest.raises(PyrasegError, match="a number from 1 on, or all"):
        find_inputs(study, phase="third")


def test_a_phase_that_is_not_there_fails_for_its_input_alone(study):
    faults = {item["name"]: item.get("fault", "") for item in find_inputs(study, phase=7)}
    assert faults.pop("plain") == ""
    assert set(faults) == {"cine", "enhanced", "times"}
    assert all("has 4 phases, and phase 7 is asked for" in fault for fault in faults.values())


def test_what_has_no_phases_to_choose_says_why(tmp_path):
    write_phases(tmp_path / "cine", trigger_times, left_out=((1, 2),))
    (item,) = find_inputs(tmp_path, phase="all")
    assert item["name"] == "cine" and "slices lie in 3 places" in item["fault"]


def test_a_name_of_another_input_is_not_taken(study):
    write_series(study / "cine_phase03", values()[0], SeriesInstanceUID=uid("other"))
    items = find_inputs(study, phase=3)
    assert len({item["name"] for item in items}) == len(items) == 5


def test_of_selected_slices_the_phases(tmp_path):
    write_phases(tmp_path / "in", lambda n, k: {"EchoTime": 2.0 + n % 2, "TriggerTime": 10.0 * n + k})
    items = find_inputs(tmp_path, phase="all", select="EchoTime=3")
    for item, expected in zip(items, (1, 3), strict=True):
        np.testing.assert_array_equal(read_series(item["image"], select="EchoTime=3").pixels, values()[expected])


def test_the_listing(study):
    facts = dict(list_inputs(study).series)
    for name in ("cine", "enhanced"):
        assert (facts[name].phases, facts[name].phases_in, facts[name].size) == (4, "", (12, 10, 3))
    assert facts["cine"].phases_by == "4 phases of the heart beat, by the n-th TriggerTime in each place"
    assert (facts["plain"].phases, facts["plain"].phases_by) == (0, "")
    assert "    --phase 1 to --phase 4, or each with --phase all" in "\n".join(list_inputs(study).lines())


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (3, 4, 5, 1), (3, 4, 5, 6), (3, 4, 5, 1, 3), (3, 4, 5, 2, 3)])
def test_volumes_are_counted_as_nibabel_counts_them(tmp_path, kind, suffix, shape):
    path = tmp_path / f"a.{suffix}"
    kind(np.zeros(shape, np.uint8), np.eye(4)).to_filename(path)
    assert volume_count(path) == np.prod(nib.load(path).shape[3:], dtype=int)


def test_damaged_headers_are_one_volume(tmp_path):
    for name, content in {"a.nii.gz": b"\x1f\x8b\x08junk", "b.nii": b"", "c.nii": b"\xff" * 400}.items():
        (tmp_path / name).write_bytes(content)
        assert volume_count(tmp_path / name) == 1

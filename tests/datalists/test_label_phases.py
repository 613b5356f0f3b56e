# SPDX-License-Identifier: Apache-2.0
"""Labels are paired with the phase that they were drawn on: SEG by what they refer to, files by their names."""

import copy

import nibabel as nib
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.data.slice_cache import state_of_files
from bundle.pyraseg.datalists.collecting import classes_present, collect_cases
from bundle.pyraseg.datalists.datalist import case_names, load_cases
from bundle.pyraseg.datalists.making import write_split
from bundle.pyraseg.datalists.pairing import find_pairs
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.datalists.test_case_options import loading
from tests.helpers.phased import trigger_times, values, write_enhanced_cine, write_phases

CLASSES = [SegmentClass.organ("liver")]
MASKS = np.random.default_rng(5).integers(0, 2, (4, 3, 12, 10)).astype(np.uint8)


def write_seg(path, files, phase):
    """Write what was drawn on a phase."""
    sources = [pydicom.dcmread(files[phase, place]) for place in range(3)]
    write_segmentation(path, MASKS[phase], sources, CLASSES)


def loaded(item):
    return loading(modality=None)(dict(item))


def test_a_seg_of_each_of_two_phases(tmp_path):
    stored = {}
    for number in range(3):
        pixels = np.random.default_rng(number).permutation(values().ravel()).reshape(values().shape)
        stored[f"c{number}"] = pixels
        files = write_phases(tmp_path / f"c{number}", trigger_times, name=f"P{number}", pixels=pixels)
        for phase in (0, 2):
            write_seg(tmp_path / "seg" / f"{number}_{phase}.dcm", files, phase)
    data = collect_cases(tmp_path, threshold=1)
    assert [(item["phase"], item["patient"]) for item in data.items] == [
        (phase, f"p{number:04d}") for number in (1, 2, 3) for phase in ("1", "3")
    ]
    write_split(data, tmp_path, tmp_path / "list", shares=(0.34, 0.33, 0.33), seed=0)
    cases = [case for part in load_cases(tmp_path / "list").values() for case in part]
    assert len(cases) == 6
    for case in cases:
        phase = int(case["phase"]) - 1
        found = loaded(case)
        np.testing.assert_array_equal(found["image"][0], stored[case["image"][-2:]][phase].T)
        np.testing.assert_array_equal(found["label"][0], MASKS[phase].T)
    assert len({state_of_files(case) for case in cases}) == 6  # the cache tells phases of one path apart
    assert len(set(case_names(cases, tmp_path))) == 6


def test_a_seg_of_another_phase_is_refused(tmp_path):
    files = write_phases(tmp_path / "c", trigger_times)
    write_seg(tmp_path / "seg.dcm", files, 1)
    image = {"image": str(tmp_path / "c"), "label": str(tmp_path / "seg.dcm")}
    (item,) = find_pairs(tmp_path)[1]
    assert item["phase"] == "2"
    (tmp_path / "datalist.json").write_text(f'{{"training": [{{"phase": 3, {str(image)[1:]}]}}'.replace("'", '"'))
    (wrong,) = load_cases(tmp_path)["training"]
    with pytest.raises(RuntimeError) as caught:
        loaded(wrong)
    assert "other images of the series" in str(caught.value.__cause__)


def test_labels_of_frames(tmp_path):
    path = write_enhanced_cine(tmp_path / "cine.dcm")
    dataset = pydicom.dcmread(path)
    for phase in (1, 2):
        numbers = [4 * place + 4 - phase for place in range(3)]
        write_segmentation(
            tmp_path / f"{phase}_seg.dcm", MASKS[phase], [dataset] * 3, CLASSES, frame_numbers=numbers
        )  # fmt: skip
    items = find_pairs(tmp_path)[1]
    assert [(item["phase"], item["label"][-9:]) for item in items] == [("2", "1_seg.dcm"), ("3", "2_seg.dcm")]


@pytest.mark.parametrize("phases", [[0, 1], [2, 3]])
def test_a_seg_of_several_phases_is_refused(tmp_path, phases):
    files = write_phases(tmp_path / "c", lambda n, k: {"AcquisitionNumber": n})
    write_seg(tmp_path / "seg.dcm", files, phases[0])
    dataset, other = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(files[phases[1], 0])
    sources = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    sources.append(copy.deepcopy(sources[0]))
    sources[1].ReferencedSOPInstanceUID = other.SOPInstanceUID
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(PyrasegError, match=f"images of its phases {phases[0] + 1}, {phases[1] + 1}: which phase"):
        find_pairs(tmp_path)


def test_two_labels_of_one_phase_are_refused(tmp_path):
    files = write_phases(tmp_path / "c", trigger_times)
    for name in "ab":
        write_seg(tmp_path / f"{name}.dcm", files, 1)
    with pytest.raises(PyrasegError, match=r"Phase 2 of the series .* has two labels"):
        find_pairs(tmp_path)


def write_nifti(path, array):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 8, 1])), path)


VOLUMES = np.moveaxis(values(), (0, 1, 2, 3), (3, 2, 1, 0))  # (W, H, D, phases)
LABELS = np.moveaxis(MASKS, (0, 1, 2, 3), (3, 2, 1, 0))


def expected(items):
    """Check image and label of items against what was written, and return their phases."""
    for item in items:
        phase = int(item["phase"]) - 1
        found = loaded(item)
        np.testing.assert_array_equal(found["image"][0], VOLUMES[..., phase])
        np.testing.assert_array_equal(found["label"][0], LABELS[..., phase])
    return [item["phase"] for item in items]


def test_nifti_labels_named_after_their_phase(tmp_path):
    write_nifti(tmp_path / "images" / "case.nii.gz", VOLUMES)
    for phase in (0, 3):
        write_nifti(tmp_path / "labels" / f"case_phase{phase + 1:02d}.nii.gz", LABELS[..., phase])
    assert expected(find_pairs(tmp_path)[1]) == ["1", "4"]
    assert [case["phase"] for case in load_cases(tmp_path, split_shares=[1, 0, 0])["training"]] == ["1", "4"]


def test_of_a_nifti_with_a_volume_for_each_phase_those_that_are_drawn(tmp_path, caplog):
    write_nifti(tmp_path / "images" / "case.nii.gz", VOLUMES)
    write_nifti(tmp_path / "labels" / "case.nii.gz", LABELS * np.array([0, 1, 0, 1], np.uint8))
    items = find_pairs(tmp_path)[1]
    assert expected(items) == ["2", "4"]
    assert "2 of 4 phases" in caplog.text
    assert classes_present(items[0]["label"], phase=1) == set() and classes_present(items[0]["label"], phase=2) == {"1"}


def test_nifti_labels_of_a_dicom_cine(tmp_path):
    write_phases(tmp_path / "images" / "case", trigger_times)
    flip = np.diag([-1.0, -1, 5, 1])
    (tmp_path / "labels").mkdir()
    nib.save(nib.Nifti1Image(LABELS[..., 1], flip), tmp_path / "labels" / "case_phase2.nii.gz")
    (item,) = find_pairs(tmp_path)[1]
    found = loaded(item)
    np.testing.assert_array_equal(found["image"][0], values()[1].T)
    np.testing.assert_array_equal(found["label"][0], MASKS[1].T)


@pytest.mark.slow
def test_the_labels_of_a_real_cine_lie_on_their_files(real_data):
    """18 of 240 files have a label: blood is brighter than the muscle around it, and neither where labels are moved."""
    items = find_pairs(real_data / "mr_heart_dicom")[1]
    assert len(items) == 18
    muscles = 0
    for item in items:
        assert item["image"].rpartition("/")[2] == item["label"].rpartition("/")[2].replace(".png", ".dcm")
        case = loading(modality=None, class_names=["background", "cavity", "muscle"])(dict(item))
        image, label = np.asarray(case["image"][0]), np.asarray(case["label"][0])
        assert image.shape == label.shape == (256, 256, 1)
        if (label == 2).any():  # at end systole it was not drawn
            muscles += 1
            assert np.median(image[label == 1]) > 1.5 * np.median(image[label == 2])
        np.testing.assert_allclose(np.linalg.norm(case["image"].affine[:3, :2], axis=0), 1.367188, atol=1e-5)
    assert muscles == 9

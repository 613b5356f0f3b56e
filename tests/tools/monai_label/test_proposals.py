# SPDX-License-Identifier: Apache-2.0
"""What a person has seen of an image, and what a submitted label says about it."""

import nibabel
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg_tools.monai_label.classes import Task
from bundle.pyraseg_tools.monai_label.proposals import keep_proposal, seen, seen_in_archive
from bundle.pyraseg_tools.monai_label.series_files import write_for_clients
from bundle.pyraseg_tools.pacs.search import label_of
from bundle.pyraseg_tools.review.record import Algorithm
from tests.helpers.reviews import MADE_BY, write_by_highdicom, write_scan

TASK = Task("pyraseg_phantom", ClassTable(["background", "liver", "lesion"]), {}, None)
MASK = np.zeros((3, 8, 8), np.uint8)
MASK[1, 2:6, 2:7] = 1
MASK[2, 3, 3] = 2


@pytest.fixture
def image(tmp_path):
    return read_series(write_scan(tmp_path / "scan"))


def written(image, mask, path):
    """Write labels on the grid that clients have."""
    grid = nibabel.load(write_for_clients(image, path.with_name("image")))
    nibabel.save(nibabel.Nifti1Image(mask.transpose(2, 1, 0), grid.affine), path)
    return path


def test_the_last_proposal_counts_and_has_one_identity(image, tmp_path):
    folder, algorithm = tmp_path / "proposal", Algorithm(*MADE_BY)
    assert seen(folder, image, TASK) is None
    found = []
    for mask in (MASK, MASK[::-1].copy(), MASK):
        keep_proposal(folder, written(image, mask, tmp_path / "label.nii.gz"), TASK.name, algorithm)
        found.append(seen(folder, image, TASK))
        np.testing.assert_array_equal(found[-1].classes, mask)
        assert len(list(folder.iterdir())) == 2
    uids = [one.result.uid for one in found]
    assert uids[0] == uids[2] != uids[1] and found[0].result.series_uid == ""
    keep_proposal(folder, tmp_path / "label.nii.gz", TASK.name, Algorithm("other", "weights ffffffffffff"))
    assert seen(folder, image, TASK).result.uid != uids[0]
    keep_proposal(folder, tmp_path / "label.nii.gz", TASK.name, algorithm, ("2.25.1", "2.25.2"))
    assert (seen(folder, image, TASK).result.uid, seen(folder, image, TASK).result.series_uid) == ("2.25.1", "2.25.2")
    assert seen(folder, image, Task("another", TASK.table, {}, None)) is None


def test_a_label_amends_or_accepts_what_was_seen(image, tmp_path):
    keep_proposal(
        tmp_path / "proposal", written(image, MASK, tmp_path / "label.nii.gz"), TASK.name, Algorithm(*MADE_BY)
    )
    proposal = seen(tmp_path / "proposal", image, TASK)
    assert proposal.corrected(MASK, "2.25.1", image, "reader").decision == "accepted"
    corrected = MASK.copy()
    corrected[1, 5] = 0
    review = proposal.corrected(corrected, "2.25.1", image, "reader")
    assert (review.decision, review.correction, review.scanner) == ("amended", "2.25.1", "Maker Scanner 7")
    assert review.dice == pytest.approx({"liver": 2 * 15 / 35, "lesion": 1})
    assert review.result.algorithm == Algorithm(*MADE_BY)


def test_else_it_is_the_newest_automatic_segmentation_of_the_task(image, tmp_path):
    paths = {
        "other task": write_by_highdicom(tmp_path / "a.dcm", tmp_path / "scan", MASK, names=["liver", "cyst"]),
        "person": write_by_highdicom(tmp_path / "b.dcm", tmp_path / "scan", MASK, "SEMIAUTOMATIC"),
        "model": write_by_highdicom(tmp_path / "c.dcm", tmp_path / "scan", MASK),
    }
    labels = [label_of(pydicom.dcmread(path, stop_before_pixels=True)) for path in paths.values()]
    files = {label.uid: path for label, path in zip(labels, paths.values(), strict=True)}
    found = seen_in_archive(labels, lambda label: files[label.uid], image, TASK)
    assert found.result.uid == labels[2].uid and found.result.algorithm == Algorithm(*MADE_BY)
    np.testing.assert_array_equal(found.classes, MASK)
    assert seen_in_archive(labels[:2], lambda label: files[label.uid], image, TASK) is None

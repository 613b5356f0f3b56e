# SPDX-License-Identifier: Apache-2.0
"""Structure sets lie where the image files say."""

import numpy as np
import pydicom
import torch
from skimage.measure import grid_points_in_poly

from bundle.pyraseg.inference.writers.dicom_objects import Algorithm
from bundle.pyraseg.transforms.label import LoadLabeld
from tests.helpers.segmented_series import NAMES, Case, complaints, structure_set_writer


def test_structure_set(case: Case, algorithm: Algorithm) -> None:
    (path,) = structure_set_writer(algorithm)(case.prediction)
    assert complaints(path) == []
    dataset = pydicom.dcmread(path)
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == NAMES[1:]
    for value, roi in enumerate(dataset.ROIContourSequence, 1):
        assert roi.ReferencedROINumber == value
        truth = {key: labels == value for key, labels in case.frames.items()}
        found = {key: np.zeros(mask.shape, int) for key, mask in truth.items()}
        for contour in roi.get("ContourSequence", []):
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            image = contour.ContourImageSequence[0]
            key = (str(image.ReferencedSOPInstanceUID), int(image.get("ReferencedFrameNumber", 1)))
            position, down, right = case.planes[key]
            offsets = np.reshape(contour.ContourData, (-1, 3)).astype(float) - position
            polygon = np.stack([offsets @ step / (step @ step) for step in (down, right)], axis=1)
            in_plane = polygon[:, :1] * down + polygon[:, 1:] * right
            np.testing.assert_allclose(offsets, in_plane, atol=2e-4)  # the contour lies in its image
            found[key] += grid_points_in_poly(truth[key].shape, polygon)
        ours, theirs = (np.stack([masks[key] for key in truth]) for masks in (truth, found))
        theirs = theirs % 2 == 1
        assert ours.any() == bool(roi.get("ContourSequence"))
        if ours.any():
            assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.99
            centroids = [np.argwhere(mask).mean(axis=0)[1:] for mask in (ours, theirs)]
            assert np.abs(centroids[0] - centroids[1]).max() < 0.1
    item = {"image": case.prediction.original, "label": path}
    ours = LoadLabeld("label", class_names=NAMES)(item)["label"]
    assert torch.equal(ours.as_tensor(), case.prediction.labels.as_tensor())  # and our own reader agrees

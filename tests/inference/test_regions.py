# SPDX-License-Identifier: Apache-2.0
"""Overlapping regions in every output: segments by highdicom, the rest as of each region alone."""

import csv
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
import trimesh
from monai.data import MetaTensor
from PIL import Image

from bundle.pyraseg.figures import color_of
from bundle.pyraseg.inference import (
    Algorithm,
    LabelMapWriter,
    MeshWriter,
    OverlayWriter,
    SegmentationWriter,
    SourceImages,
    StructureSetWriter,
    Uncertainty,
    VolumeTable,
)
from tests.helpers.dicom_files import PATIENT, write_series
from tests.helpers.segmented_series import SPACING, STACKS, Case, complaints, letters, make_case

CLASSES = ["background", "liver", "lesion", "spleen"]
REGIONS = {"whole organ": ["liver", "lesion"], "tumor": ["lesion"], "nothing": ["spleen"]}
TERMINOLOGY = {
    "whole organ": {"type": ["10200004", "SCT", "Liver"]},
    "tumor": {
        "category": ["49755003", "SCT", "Morphologically Abnormal Structure"],
        "type": ["52988006", "SCT", "Lesion"],
    },
    "nothing": {"type": ["78961009", "SCT", "Spleen"]},
}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """An F as the organ and a block as the tumor, which overlap in a part of each, on an oblique stack."""
    folder = tmp_path_factory.mktemp("case")
    organ = letters() == 1
    tumor = np.zeros_like(organ)
    tumor[1:3, 10:30, 10:40] = True
    values = organ + 2 * tumor.astype(np.uint8)
    orientation, step = STACKS["oblique"]
    where = {"orientation": orientation, "slice_step": step, "origin": (-31.5, 42.25, 100.75)}
    write_series(folder / "in", values.astype(np.int16), **where, spacing=SPACING, SliceThickness=4, **PATIENT)
    return make_case(folder / "in", lambda number: values[number], folder)


@pytest.fixture(scope="module")
def algorithm(tmp_path_factory: pytest.TempPathFactory) -> Algorithm:
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    weights.write_bytes(b"weights")
    return Algorithm(name="Pyraseg", model_file=weights)


def bits(values: np.ndarray, place: int) -> np.ndarray:
    return np.isin(values, [value for value in range(8) if value // 2**place % 2])


def alone(case: Case, place: int) -> Case:
    """Return the same with one region as the only class."""
    found = case.prediction
    mask = torch.from_numpy(bits(found.labels.numpy(), place).astype(np.uint8))
    labels = MetaTensor(mask, meta=found.labels.meta)
    return replace(case, prediction=replace(found, labels=labels, stem=found.stem.with_name(f"alone_{place}")))


def test_the_case_overlaps(case: Case) -> None:
    assert np.unique(case.prediction.slices).tolist() == [0, 1, 2, 3]


def test_segments_overlap_in_one_object(case: Case, algorithm: Algorithm) -> None:
    writer = SegmentationWriter(
        class_names=CLASSES,
        terminology=TERMINOLOGY,
        algorithm=algorithm,
        sources=SourceImages(complete_headers=False),
        regions=REGIONS,
    )
    (path,) = writer(case.prediction)
    seg = hd.seg.segread(path)
    assert seg.SegmentationType == "BINARY" and seg.SegmentsOverlap == "YES"
    assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == list(REGIONS)
    assert seg.get_segment_description(2).segmented_property_type.value == "52988006"
    uids = [uid for uid, _ in case.frames]
    found = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    truth = np.stack(list(case.frames.values()))
    for place in range(3):
        assert np.array_equal(found[..., place] > 0, bits(truth, place))
    both = (found[..., 0] > 0) & (found[..., 1] > 0)
    assert both.sum() == (truth == 3).sum() > 0
    with pytest.raises(RuntimeError, match="overlap"):
        seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)


def test_the_objects_are_valid(case: Case, algorithm: Algorithm) -> None:
    common = {"class_names": CLASSES, "algorithm": algorithm, "regions": REGIONS}
    sources = SourceImages(complete_headers=False)
    writers = (
        SegmentationWriter(terminology=TERMINOLOGY, sources=sources, **common),
        StructureSetWriter(sources=sources, **common),
    )
    for writer in writers:
        (path,) = writer(case.prediction)
        assert complaints(path) == []


def test_outlines_are_those_of_each_region_alone(case: Case, algorithm: Algorithm) -> None:
    def contours(prediction, **options) -> list:
        writer = StructureSetWriter(algorithm=algorithm, sources=SourceImages(complete_headers=False), **options)
        (path,) = writer(prediction)
        dataset = pydicom.dcmread(path)
        names = [roi.ROIName for roi in dataset.StructureSetROISequence]
        points = [[c.ContourData for c in roi.get("ContourSequence", [])] for roi in dataset.ROIContourSequence]
        return list(zip(names, points, strict=True))

    together = contours(case.prediction, class_names=CLASSES, regions=REGIONS)
    assert [name for name, _ in together] == list(REGIONS) and not together[2][1]
    for place in range(3):
        ((_, expected),) = contours(alone(case, place).prediction, class_names=["background", "x"])
        assert together[place][1] == expected


def test_each_region_is_a_mask_a_mesh_and_a_row(case: Case, tmp_path: Path) -> None:
    prediction = replace(case.prediction, stem=tmp_path / "case")
    paths = LabelMapWriter(class_names=CLASSES, regions=REGIONS)(prediction)
    assert [path.name for path in paths] == ["case_whole_organ.nii.gz", "case_tumor.nii.gz", "case_nothing.nii.gz"]
    for place, path in enumerate(paths):
        image = nib.load(path)
        assert np.array_equal(np.asarray(image.dataobj) > 0, bits(prediction.labels[0].numpy(), place))
        np.testing.assert_allclose(image.affine, prediction.original.affine, atol=1e-4)
        assert set(np.unique(image.dataobj)) <= {0, 1}
    meshes = MeshWriter(class_names=CLASSES, regions=REGIONS)(prediction)
    assert [path.name for path in meshes] == ["case_whole_organ.stl", "case_tumor.stl"]
    table = VolumeTable(output_dir=tmp_path, class_names=CLASSES, regions=REGIONS)
    table.start()
    table(prediction)
    table.finish()
    rows = list(csv.DictReader((tmp_path / "volumes.csv").open()))
    assert [(row["class"], row["value"]) for row in rows] == [(name, str(n)) for n, name in enumerate(REGIONS, 1)]
    voxel = SPACING[0] * SPACING[1] * 4.0
    for place, row in enumerate(rows):
        voxels = int(bits(prediction.slices, place).sum())
        assert int(row["voxels"]) == voxels
        assert float(row["volume_ml"]) == pytest.approx(voxels * voxel / 1000, rel=1e-3)
    for path, row in zip(meshes, rows, strict=False):
        assert abs(trimesh.load(path).volume) / 1000 == pytest.approx(float(row["volume_ml"]), rel=0.02)


def test_what_lies_outside_is_told(case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    table = VolumeTable(output_dir=tmp_path, class_names=CLASSES, regions=REGIONS)
    table(case.prediction)
    values = case.prediction.slices
    share = (values == 2).sum() / np.isin(values, [2, 3]).sum()
    assert f"{100 * share:.2f} % of the voxels of tumor lie outside whole organ" in caplog.text


def test_a_picture_shows_the_last_region_on_top(tmp_path: Path) -> None:
    values = torch.zeros(1, 300, 280, dtype=torch.uint8)
    values[0, 20:200, 20:200], values[0, 60:120, 60:120] = 1, 3
    picture = OverlayWriter(class_names=CLASSES, windows=None, regions=REGIONS)
    image = MetaTensor(torch.zeros(3, 300, 280, dtype=torch.uint8))

    class Found:
        original, labels, stem = image, MetaTensor(values), tmp_path / "photo"

    (path,) = picture(Found)
    drawn = np.asarray(Image.open(path))
    map_column = drawn[:, 300:600]
    for region, (x, y) in {1: (30, 30), 2: (90, 90), 0: (250, 250)}.items():
        assert map_column[y + 18, x].tolist() == color_of(np.array(region)).tolist()


def test_uncertainty_is_that_of_each_region() -> None:
    """Of two views, the Dice of each channel's mask."""
    torch.manual_seed(0)
    images = torch.rand(1, 1, 20, 16)

    def look(shown: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(-1, 1, 20)[None, None, :, None]
        return torch.cat([shown - 0.5, shown - 0.7 + 0.3 * ramp, ramp + 0 * shown - 2], dim=1)

    logits = look(images)
    found = Uncertainty(flips=[[0]], overlapping=True).of_classes(images, logits, torch.nn.Identity(), look)
    first, second = logits > 0, look(images.flip(2)).flip(2) > 0
    dice = 2 * (first & second).sum((0, 2, 3)) / (first.sum((0, 2, 3)) + second.sum((0, 2, 3)))
    torch.testing.assert_close(found[:2], 1 - dice[:2].double())
    assert found[2].isnan() and found[0] == 0 and found[1] > 0.1

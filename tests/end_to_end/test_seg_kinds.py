# SPDX-License-Identifier: Apache-2.0
"""The config of inference with every type of DICOM SEG and a capture, and a network whose answer is a formula."""

import json
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow

from bundle.pyraseg.core import mendable
from bundle.pyraseg.dicom import read_series
from bundle.pyraseg.labels import ClassTable, ImageGrid, read_dicom_label
from tests.helpers.commands import config_files
from tests.helpers.dicom_files import write_series
from tests.helpers.segmented_series import complaints
from tests.helpers.threshold_network import ThresholdNetwork

THRESHOLD = 100
SHAPE = (5, 24, 20)
UNUSED = ("encoder", "pretrained", "output_stride", "patch_stem", "pool_sizes", "decoder", "decoder_stride",
          "bottleneck", "dropout")  # fmt: skip
#: A network that compares with the threshold, without resampling.
CONFIG = {
    "class_names": ["background", "liver"],
    "windows": [{"center": THRESHOLD, "width": 400, "function": "LINEAR_EXACT"}],
    "context_slices": 0,
    "network_def": {
        "_target_": "tests.helpers.threshold_network.ThresholdNetwork",
        "in_channels": 1,
        "unused": [f"@{name}" for name in UNUSED],
    },
    "preprocessing#transforms#4#_disabled_": True,
}
TABLE = ClassTable(["background", "liver"])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("kinds")
    values = np.random.default_rng(0).integers(THRESHOLD - 30, THRESHOLD + 30, SHAPE).astype(np.int16)
    values[values == THRESHOLD] += 1
    write_series(folder / "in" / "ct", values, spacing=(2.0, 1.5), slice_step=3.0)
    torch.save(ThresholdNetwork().state_dict(), folder / "model.pt")
    (folder / "own.json").write_text(json.dumps(CONFIG))
    return SimpleNamespace(folder=folder, values=values)


def segment(work: SimpleNamespace, name: str, **options: object) -> Path:
    """Run the config and return the folder of the results."""
    given = {"model_file": str(work.folder / "model.pt"), "dataset_dir": str(work.folder / "in")}
    files = [config_files("inference.json"), str(work.folder / "own.json")]
    workflow = ConfigWorkflow(
        files, workflow_type="infer", output_dir=str(work.folder / name), **given, device="cpu", **options
    )
    workflow.initialize()
    workflow.run()
    return work.folder / name


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_labels_of_either_type(work: SimpleNamespace, kind: str) -> None:
    out = segment(work, kind, outputs=["seg"], seg_type=kind)
    assert complaints(out / "ct_seg.dcm") == []
    assert hd.seg.segread(out / "ct_seg.dcm").SegmentationType == kind
    image = read_series(work.folder / "in" / "ct")
    labels = read_dicom_label(out / "ct_seg.dcm", ImageGrid.of(image), TABLE)
    assert np.array_equal(labels, image.pixels > THRESHOLD)


def test_probabilities_are_those_of_the_network_and_a_capture_stands_beside(work: SimpleNamespace) -> None:
    out = segment(work, "fractional", outputs=["seg", "capture"], seg_type="FRACTIONAL", capture_slices=2)
    assert sorted(path.name for path in out.iterdir()) == ["ct_capture.dcm", "ct_seg.dcm"]
    assert complaints(out / "ct_seg.dcm") == complaints(out / "ct_capture.dcm") == []
    image = read_series(work.folder / "in" / "ct")
    expected = 1 / (1 + np.exp(-40.0 * (image.pixels.astype(float) - THRESHOLD) / 200))  # see `ThresholdNetwork`
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in image.files]
    found = hd.seg.segread(out / "ct_seg.dcm").get_pixels_by_source_instance(uids)[..., 0]
    assert np.abs(found - expected).max() < 0.5 / 255 + 1e-4 and 0 < found.min() < 0.01
    labels = read_dicom_label(out / "ct_seg.dcm", ImageGrid.of(image), TABLE)
    assert np.array_equal(labels, image.pixels > THRESHOLD)
    assert pydicom.dcmread(out / "ct_capture.dcm").NumberOfFrames == 2


def test_a_type_that_does_not_fit_is_refused_before_anything_is_segmented(work: SimpleNamespace) -> None:
    regions = {"regions": {"organ": ["liver"]}, "terminology": {"organ": {"type": ["113343008", "SCT", "Organ"]}}}
    for options, message in (
        ({"seg_type": "LABELMAP", **regions}, "LABELMAP has one segment a pixel"),
        ({"seg_type": "BINRAY"}, "no DICOM SEG of type 'BINRAY'"),
    ):
        with pytest.raises(Exception) as caught:
            segment(work, "refused", outputs=["seg"], **options)
        assert message in str(mendable(caught.value))
    assert not (work.folder / "refused").exists()

# SPDX-License-Identifier: Apache-2.0
"""Graphs of overlapping regions: those of the bundle's own inference, and what the runtime writes of them."""

import json
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from monai.transforms import Activationsd, Compose, LoadImaged
from PIL import Image
from torch import Tensor

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.deployment import Decision, Parts, describe, export, path_model
from bundle.pyraseg.deployment.agreement import compare_path
from bundle.pyraseg.deployment.examples import examples
from bundle.pyraseg.deployment.exporting import network_model
from bundle.pyraseg.deployment.reference import Reference
from bundle.pyraseg.runtime import Model
from bundle.pyraseg.runtime.__main__ import main as segment
from bundle.pyraseg.transforms import InvertRegionsd, MedicalImageReader
from tests.helpers.dicom_files import CORONAL, PATIENT, write_series
from tests.helpers.onnx_paths import WINDOWS, Convolutions, inferer, kind_of, network, photograph, recipe_of, volume
from tests.helpers.some import some_slow

CLASSES = ["background", "liver", "lesion", "spleen"]
REGIONS = {"whole organ": ["liver", "lesion"], "tumor": ["lesion"], "any": ["liver", "lesion", "spleen"]}
PROPERTIES = {
    "algorithm": "Pyraseg",
    "version": "1.2.3",
    "weights_sha256": "0123456789abcdef",
    "class_names": json.dumps(CLASSES),
    "regions": json.dumps(REGIONS),
    "terminology": json.dumps({name: {"type": ["10200004", "SCT", "Liver"]} for name in REGIONS}),
}
MAKE = {"a volume": lambda: volume(*WINDOWS, context_slices=1), "a photograph": photograph}


def steps(preprocessing: Compose, flips: list[list[int]]) -> tuple:
    post = [
        Activationsd("pred", sigmoid=True),
        InvertRegionsd("pred", transform=preprocessing, orig_keys="image", regions=REGIONS),
    ]
    return preprocessing, inferer(preprocessing, flips), Compose(post)


def exported(
    folder: Path, preprocessing: Compose, flips: list[list[int]], *, decision: Decision | None = None
) -> tuple:
    parts = steps(preprocessing, flips)
    channels = recipe_of(*parts).channels
    whole = Parts(network(channels), channels, 4, *parts, kind_of(preprocessing), regions=3)
    files = folder / "r.network.onnx", folder / "r.onnx"
    found = export(whole, *files, properties=PROPERTIES, decision=decision or Decision())
    return files, found, Reference(network(channels), *parts, Decision(), sigmoid=True)


@pytest.mark.slow
@pytest.mark.parametrize("flips", [[], [[0], [1], [0, 1]]], ids=["plain", "mirrored"])
@pytest.mark.parametrize("kind", MAKE)
def test_a_graph_gives_the_regions_of_the_bundle(kind: str, flips: list, tmp_path: Path) -> None:
    files, agreements, reference = exported(tmp_path, MAKE[kind](), flips)
    for agreement in agreements.values():
        assert agreement.logit_error < 1e-5 and agreement.probability_error < 1e-5
        assert agreement.mask_agreement > 0.9999
    about = {item.key: item.value for item in onnx.load(files[1]).metadata_props}
    assert about["pyraseg_format"] == "2" and json.loads(about["recipe"])["regions"] == 3
    recipe = recipe_of(*steps(MAKE[kind](), flips))
    found = np.concatenate([reference(one.item).classes.ravel() for one in examples(recipe)])
    assert len(np.unique(found)) > 4  # so that sets were compared, not single regions
    apart = Reference(network(recipe.channels), *steps(MAKE[kind](), flips), Decision())  # a softmax
    assert compare_path(onnx.load(files[1]), apart, examples(recipe)).probability_error > 0.1


def test_the_runtime_writes_what_the_bundle_finds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    random = np.random.default_rng(0)
    values = (400 * random.random((5, 48, 40))).astype(np.int16)
    write_series(tmp_path / "in" / "ct", values, orientation=CORONAL, spacing=(1.2, 0.9), slice_step=3.0,
                 SliceThickness=3, **PATIENT)  # fmt: skip
    files, _, reference = exported(tmp_path, volume("soft_tissue", context_slices=1), [])
    load = LoadImaged("image", reader=MedicalImageReader(), ensure_channel_first=True)
    loaded = load({"image": str(tmp_path / "in" / "ct")})
    truth = reference(loaded).classes  # (slices, rows, columns)
    for format in ("png", "nifti", "seg"):
        assert segment([str(files[1]), str(tmp_path / "in"), str(tmp_path / format), "--format", format]) == 0
    assert "ct -> ct_whole_organ.nii.gz, ct_tumor.nii.gz, ct_any.nii.gz" in capsys.readouterr().out
    masks = [np.isin(truth, [v for v in range(8) if v >> place & 1]) for place in range(3)]
    assert (masks[0] & masks[1]).any() and (masks[0] != masks[1]).any()
    for name, mask in zip(("whole_organ", "tumor", "any"), masks, strict=True):
        pictures = sorted((tmp_path / "png" / f"ct_{name}_labels").iterdir())
        assert np.array_equal(np.stack([np.asarray(Image.open(path)) for path in pictures]), mask)
        image = nib.load(tmp_path / "nifti" / f"ct_{name}.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj).T, mask)
        np.testing.assert_allclose(image.affine, loaded["image"].affine, atol=1e-4)
    seg = hd.seg.segread(tmp_path / "seg" / "ct_seg.dcm")
    assert seg.SegmentsOverlap == "YES" and len(seg.segment_numbers) == 3
    uids = [str(uid) for _, _, uid in seg.get_source_image_uids()]
    found = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert sorted(map(np.ndarray.tobytes, found.astype(bool))) == sorted(
        map(np.ndarray.tobytes, np.ascontiguousarray(np.stack(masks, axis=-1)))
    )


class Spoilt(Convolutions):
    """A network whose second channel is not finite."""

    def __init__(self, value: float) -> None:
        super().__init__(3, 3)
        self.value = value

    def forward(self, image: Tensor) -> Tensor:
        first, second, third = super().forward(image).split(1, dim=1)
        infinite = (second.abs() + 1) * 3e38 * 10
        spoilt = infinite - infinite if np.isnan(self.value) else torch.sign(torch.tensor(self.value)) * infinite
        return torch.cat([first, spoilt, third], dim=1)


@pytest.mark.parametrize("value", some_slow([np.nan, np.inf, -np.inf], [np.inf]))
def test_an_output_that_is_not_finite_makes_no_mask(value: float, tmp_path: Path) -> None:
    """The sigmoid of infinity is 1, and the other channels know nothing of it."""
    recipe = recipe_of(*steps(photograph(), []))
    model = path_model(network_model(Spoilt(value), 3), recipe, Decision())
    about = {"pyraseg_format": "2", "content": "path", "recipe": '{"image_kind": "photograph"}'}
    onnx.save(ir.to_proto(describe(model, {**PROPERTIES, **about})), tmp_path / "spoilt.onnx")
    with pytest.raises(PyrasegError, match="NaN or infinite, and makes no mask"):
        Model(tmp_path / "spoilt.onnx", threads=1).classes({"image": np.full((1, 50, 40, 3), 200, np.uint8)})


@pytest.mark.parametrize("decision", [Decision(1.5), Decision(1.0, 0.4)])
def test_a_temperature_or_a_threshold_is_refused(decision: Decision, tmp_path: Path) -> None:
    with pytest.raises(PyrasegError, match=r"Regions have no temperature, and a voxel lies in those above 0\.5"):
        exported(tmp_path, photograph(), [], decision=decision)

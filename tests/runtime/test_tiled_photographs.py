# SPDX-License-Identifier: Apache-2.0
"""Of a photograph that the network sees tile by tile the runtime gives the labels that the bundle gives."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from monai.transforms import Activationsd, Compose, LoadImaged
from PIL import Image

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.deployment import Decision, Parts, export
from bundle.pyraseg.deployment.reference import Reference
from bundle.pyraseg.runtime import Model, segment
from bundle.pyraseg.runtime.__main__ import main
from bundle.pyraseg.transforms import InvertRegionsd, MedicalImageReader
from tests.helpers.dicom_files import uid, write_image
from tests.helpers.exported import PROPERTIES, Exported, exported
from tests.helpers.onnx_paths import network, photograph, tiled
from tests.helpers.runtime_series import check, png

FLIPS = [[0], [1], [0, 1]]
REGIONS = {"all": ["liver", "spleen"], "spleen": ["spleen"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    chain = photograph()
    return exported(tmp_path_factory.mktemp("tiles"), chain, rgb=True, parts=tiled(chain, FLIPS))


def picture(path: Path, size: tuple[int, int], *, gray: bool = False) -> Path:
    pixels = np.random.default_rng(1).integers(0, 255, (7, 5) if gray else (7, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize("size", [(33, 47), (64, 48), (301, 200)])
def test_photographs(size: tuple[int, int], model: Exported, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", size)
    assert main([str(model.path), str(path), str(tmp_path / "out"), "--threads", "1"]) == 0
    check(png(tmp_path / "out" / "a.png"), model.truth(path))


def test_one_in_dicom(model: Exported, tmp_path: Path) -> None:
    colors = np.asarray(Image.open(picture(tmp_path / "a.png", (60, 50))))
    layout = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "Modality": "XC",
              "SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB", "Rows": 50,
              "Columns": 60}  # fmt: skip
    file = tmp_path / "in" / "rgb.dcm"
    write_image(file, colors.tobytes(), **layout, SeriesInstanceUID=uid("rgb"))
    assert main([str(model.path), str(file), str(tmp_path / "out"), "--threads", "1"]) == 0
    check(png(tmp_path / "out" / "rgb.png"), model.truth(file))


def test_tiles_and_mirror_images_matter(model: Exported, tmp_path: Path) -> None:
    """Else nothing above would have been compared."""
    path = picture(tmp_path / "a.png", (301, 200))
    chain = photograph()
    item = LoadImaged("image", reader=MedicalImageReader(rgb=True), ensure_channel_first=True)({"image": path})
    for parts in (tiled(chain, FLIPS, roi_size=(64, 48)), tiled(chain, [])):
        other = Reference(network(3), *parts, Decision())(item).classes
        assert (other == model.truth(path)).mean() < 0.999


def test_what_the_file_says_and_earlier_runtimes_refuse(model: Exported) -> None:
    about = {item.key: item.value for item in onnx.load(model.path).metadata_props}
    recipe = json.loads(about["recipe"])
    assert (about["content"], about["pyraseg_format"]) == ("tiles", "3")
    assert (recipe["image_kind"], recipe["size"], recipe["patch_size"]) == ("photograph", [64, 48], [24, 20])
    assert recipe["overlap"] == 0.4 and recipe["tta_flips"] == FLIPS


def test_regions_overlap(tmp_path: Path) -> None:
    chain = photograph()
    _, inferer, _ = tiled(chain, FLIPS)
    invert = InvertRegionsd("pred", transform=chain, orig_keys="image", regions=REGIONS)
    after = Compose([Activationsd("pred", sigmoid=True), invert])
    parts = Parts(network(3, 2), 3, 3, chain, inferer, after, "photograph", regions=2)
    properties = {**PROPERTIES, "regions": json.dumps(REGIONS)}
    export(parts, tmp_path / "n.onnx", tmp_path / "p.onnx", properties=properties)
    path = picture(tmp_path / "a.png", (90, 70))
    found = next(segment(Model(tmp_path / "p.onnx", threads=1), str(path)).slices)
    load = LoadImaged("image", reader=MedicalImageReader(rgb=True), ensure_channel_first=True)
    expected = Reference(network(3, 2), chain, inferer, after, Decision(), sigmoid=True)(load({"image": path})).classes
    check(found[None], expected)
    assert len(np.unique(expected)) == 3


def test_a_threshold_is_refused(tmp_path: Path) -> None:
    chain = photograph()
    parts = Parts(network(3, 2), 3, 2, *tiled(chain, []), "photograph")
    with pytest.raises(PyrasegError, match="threshold is for whole images"):
        export(parts, tmp_path / "n.onnx", tmp_path / "p.onnx", properties={}, decision=Decision(1.0, 0.3))
    assert not list(tmp_path.iterdir())

# SPDX-License-Identifier: Apache-2.0
"""A client's click corrects what the runtime corrects: the same voxels, however the image lies."""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import LoadImaged
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.structures import Structures
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.inference.inferers import SlabInferer
from bundle.pyraseg.runtime.click_model import ClickModel
from bundle.pyraseg.runtime.click_session import ClickSession
from bundle.pyraseg.transforms.reader import MedicalImageReader
from bundle.pyraseg_tools.monai_label.clicked_images import Asked, ClickedImage, clicks_by_label, clicks_in
from bundle.pyraseg_tools.monai_label.series_files import write_for_clients
from tests.helpers.click_models import ClickExport, Levels, export_clicks
from tests.helpers.dicom_files import write_series
from tests.helpers.onnx_paths import photograph, volume
from tests.helpers.runtime_series import SERIES, gray

NAMES = ["background", "liver", "spleen"]
MARK = 1500  # a value that one voxel alone has
#: Slices, rows, columns. No pixel lies in the middle of two of the network's: where a disc begins between these, its
#: probability would be exactly a half, which rounding would decide.
SHAPE = (6, 44, 52)

pytestmark = pytest.mark.slow  # two exports


@dataclass(frozen=True)
class Both:
    """One model, for the label server and for the runtime."""

    exported: ClickExport

    def session(self, path: Path) -> ClickSession:
        return ClickSession(ClickModel(self.exported.path, threads=1), str(path))

    def clicked(self, path: Path) -> ClickedImage:
        """Return an image as the label server opens it."""
        network, steps = self.exported.network, self.exported.reference
        load = LoadImaged(
            "image", MedicalImageReader(rgb=path.suffix == ".png"), ensure_channel_first=True, expanduser=False
        )
        image = steps.preprocessing(load({"image": str(path)}))["image"]
        with torch.no_grad():
            logits = steps.inferer(image[None], network.plain)[0]
        slab = SlabInferer(steps.inferer, postprocessing=steps.postprocessing, classes=3)

        def to_labels(logits, shown):
            return slab.to_labels({"pred": logits, "image": shown})["pred"]

        return ClickedImage(image, logits, to_labels(logits, image), network, Structures(NAMES), to_labels)


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> Both:
    shown, levels = volume({"center": 90, "width": 180}, context_slices=1), Levels((0.0, 0.9, -3.0))
    return Both(export_clicks(tmp_path_factory.mktemp("slices"), shown, channels=3, plain=levels))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Both:
    levels = Levels((-2.0, 0.0, 2.0))
    return Both(export_clicks(tmp_path_factory.mktemp("photographs"), photograph(), channels=3, plain=levels))


def marked_series(folder: Path, name: str) -> Path:
    """Write a series that is alike in no direction, with one marked voxel."""
    values = gray(SHAPE)
    values[4, 33, 9] = MARK
    write_series(folder, values, **{"spacing": (1.3, 0.9), "slice_step": 2.5, **SERIES[name]})
    return folder


def on_slices(labels) -> list[np.ndarray]:
    """Return (1, W, H[, D]) as the runtime has it: (rows, columns) of each slice."""
    array = np.asarray(labels)[0]
    return list(array.transpose(2, 1, 0)) if array.ndim == 3 else [array.T]


def require_equal(labels, session: ClickSession) -> None:
    for number, found in enumerate(on_slices(labels)):
        np.testing.assert_array_equal(found, session.labels(number))


@pytest.mark.parametrize("name", ["sagittal", "flipped", "turned", "downwards", "tilted", "with a gap"])
def test_a_voxel_of_the_file_of_a_client_is_the_pixel_of_the_series(name, slices, tmp_path):
    """The marked voxel is found by its value, in the client's file and in the series."""
    folder = marked_series(tmp_path / "in", name)
    client = nibabel.load(write_for_clients(read_series(folder), tmp_path / "client"))
    (voxel,) = np.argwhere(np.asarray(client.dataobj) == MARK).tolist()
    image, session = slices.clicked(folder), slices.session(folder)
    ((number, row, column),) = np.argwhere([session.pixels(k) == MARK for k in range(session.shape[0])])
    require_equal(image.automatic, session)

    first, second = Asked(tuple(voxel), 2, True), Asked((voxel[0] + 12, voxel[1] - 4, voxel[2]), 2, False)
    labels = image.labels([first], about=2)
    session.refine([(column, row, True)], structure=2, number=number)
    require_equal(labels, session)
    assert on_slices(labels)[number][row, column] == 2 and image.found_at(voxel) != 2

    labels = image.labels([first, second], about=2)
    session.refine([(column + 12, row - 4, False)], structure=2, number=number)
    require_equal(labels, session)
    session.undo()
    require_equal(image.labels([first], about=2), session)  # a click that is gone is taken back
    session.undo()
    require_equal(image.labels([], about=2), session)


def test_slices_of_the_file_that_the_series_does_not_have(slices, tmp_path):
    folder = marked_series(tmp_path / "in", "with a gap")
    client = nibabel.load(write_for_clients(read_series(folder), tmp_path / "client"))
    assert client.shape == (52, 44, 22)
    image = slices.clicked(folder)
    with pytest.raises(PyrasegError, match="Slice 7 was clicked, where the series has no image"):
        image.labels([Asked((3, 4, 7), 1, True)], about=1)
    with pytest.raises(PyrasegError, match=r"\[3, 4, 22\] was clicked, outside the image of 52 x 44 x 22 voxels"):
        image.labels([Asked((3, 4, 22), 1, True)], about=1)


def test_clicks_on_a_photograph(photographs, tmp_path):
    pixels = np.full((144, 192, 3), 20, np.uint8)
    pixels[:, 60:90], pixels[80:, 130:] = 120, 250
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    image, session = photographs.clicked(tmp_path / "photo.png"), photographs.session(tmp_path / "photo.png")
    asked = {"foreground": [[20, 100, 0], [180, 15, 0]], "background": [[75, 30, 0]]}
    labels = image.labels(clicks_in({"foreground": asked["foreground"][:1]}, 1), about=1)
    session.refine([(20, 100, True)])
    require_equal(labels, session)
    labels = image.labels(clicks_in(asked, 1), about=1)
    session.refine([(180, 15, True), (75, 30, False)])
    require_equal(labels, session)
    assert session.labels()[100, 20] == session.labels()[15, 180] == 1
    with pytest.raises(PyrasegError, match=r"\[192, 3, 0\] was clicked, outside the image of 192 x 144 x 1 voxels"):
        image.labels([Asked((192, 3, 0), 1, True)], about=1)


def test_points_of_labels_and_of_the_background(photographs, tmp_path):
    """The background is outside of labels with points, and of what was found there; where that is nothing, of all."""
    pixels = np.full((48, 64, 3), 20, np.uint8)
    pixels[:, 32:] = 250
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    image, labels = photographs.clicked(tmp_path / "photo.png"), {"liver": 1, "spleen": 2}
    left, right = [[10, 24, 0]], [[50, 24, 0]]
    assert (image.found_at(left[0]), image.found_at(right[0])) == (0, 2)
    for asked, outside in (
        ({"background": left}, [1, 2]),
        ({"background": right}, [2]),
        ({"liver": left, "background": right}, [1, 2]),
        ({"liver": left, "spleen": [], "background": left}, [1]),
    ):
        clicks = clicks_by_label(asked, labels, image)
        assert [click.structure for click in clicks if not click.inside] == outside
        assert [click.structure for click in clicks if click.inside] == [1] * ("liver" in asked)

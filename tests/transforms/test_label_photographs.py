# SPDX-License-Identifier: Apache-2.0
"""Labels of photographs and radiographs are matched by size, and their values told apart."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.label import UNKNOWN
from tests.helpers.dicom_files import write_image
from tests.helpers.labeled_images import CLASSES, PICTURE, load, write_picture


@pytest.mark.parametrize("palette", [False, True], ids=["gray", "palette"])
@pytest.mark.parametrize("suffix", ["png", "dcm"])
def test_a_label_of_a_photograph_is_matched_by_size(tmp_path: Path, suffix: str, palette: bool) -> None:
    photograph = tmp_path / f"image.{suffix}"
    if suffix == "dcm":  # a projection, without a patient position
        write_image(photograph, np.zeros(PICTURE.shape, np.int16), Modality="CR")
    else:
        write_picture(photograph, np.zeros((*PICTURE.shape, 3), np.uint8))
    image, label = load(photograph, write_picture(tmp_path / "label.png", PICTURE, palette=palette))
    assert label.shape == (1, *image.shape[1:])
    assert np.array_equal(np.squeeze(label.numpy()), PICTURE.T)


def test_a_label_of_another_size_is_refused(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    with pytest.raises(PyrasegError, match=r"another size than its image: .*label\.png has 4 x 7 voxels, .*has 5 x 7"):
        load(photograph, write_picture(tmp_path / "label.png", PICTURE[:, 1:]))
    with pytest.raises(PyrasegError, match="another size than its image, with width and height exchanged, as one that"):
        load(photograph, write_picture(tmp_path / "label.png", PICTURE.T))


def tagged(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("mask_has_a_tag", [False, True])
def test_image_and_label_lie_as_they_are_shown(tmp_path: Path, mask_has_a_tag: bool) -> None:
    shown = np.stack([PICTURE * 50] * 3, axis=2)
    photograph = tagged(tmp_path / "image.png", shown[:, ::-1].swapaxes(0, 1), 6)  # turned clockwise to be shown
    if mask_has_a_tag:
        mask = tagged(tmp_path / "label.png", PICTURE[::-1].T, 8)  # counterclockwise
    else:
        mask = write_picture(tmp_path / "label.png", PICTURE)
    image, label = load(photograph, mask)
    assert np.array_equal(image[0], 50 * label[0])
    assert np.array_equal(label[0], PICTURE.T)


def test_a_label_drawn_on_the_stored_pixels_is_refused(tmp_path: Path) -> None:
    photograph = tagged(tmp_path / "image.png", np.zeros((5, 7), np.uint8), 6)
    with pytest.raises(PyrasegError, match=r"has 7 x 5 voxels, .*image\.png has 5 x 7"):
        load(photograph, write_picture(tmp_path / "label.png", np.zeros((5, 7), np.uint8)))


#: A mask, and pictures that can only mean it.
MASK = PICTURE == 1
WHITE = MASK.astype(np.uint8) * 255
NONE = np.zeros_like(WHITE)
FULL = np.full_like(WHITE, 255)
RED_PALETTE = [0, 0, 0, 255, 0, 0]
UNAMBIGUOUS = {
    "gray": Image.fromarray(WHITE),
    "one bit": Image.fromarray(MASK),
    "equal channels": Image.fromarray(np.stack([WHITE] * 3, 2)),
    "equal channels, opaque": Image.fromarray(np.stack([WHITE] * 3 + [FULL], 2)),
    "gray, opaque": Image.fromarray(np.stack([WHITE, FULL], 2)),
    "red on black": Image.fromarray(np.stack([WHITE, NONE, NONE], 2)),
    "a dark color on black": Image.fromarray(np.stack([NONE, WHITE // 255, WHITE // 128], 2)),
    "opacity alone": Image.fromarray(np.stack([NONE] * 3 + [WHITE], 2)),
    "red, transparent elsewhere": Image.fromarray(np.stack([FULL, NONE, NONE, WHITE], 2)),
    "premultiplied": Image.fromarray(np.stack([WHITE, NONE, NONE, WHITE], 2)),
    "white, transparent elsewhere": Image.fromarray(np.stack([FULL, WHITE], 2)),
    "white on black, transparent around": Image.fromarray(
        np.stack([WHITE] * 3 + [np.where(MASK | (np.arange(5) > 0), 255, 0).astype(np.uint8)], 2)
    ),
}


@pytest.mark.parametrize("picture", UNAMBIGUOUS.values(), ids=UNAMBIGUOUS)
def test_pictures_of_a_mask_are_read_where_they_are_unambiguous(tmp_path: Path, picture: Image.Image) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    picture.save(tmp_path / "label.png")
    label = load(photograph, tmp_path / "label.png", class_names=["background", "lesion"], mask_value=255)[1]
    assert np.array_equal(label[0], MASK.T)


@pytest.mark.parametrize("mask_value", [None, 255])
def test_a_palette_tells_by_index_or_color(tmp_path: Path, mask_value: int | None) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    picture = Image.fromarray(MASK.astype(np.uint8), mode="P")
    picture.putpalette(RED_PALETTE)
    picture.save(tmp_path / "label.png")
    options = {"class_names": ["background", "lesion"], "mask_value": mask_value}
    assert np.array_equal(load(photograph, tmp_path / "label.png", **options)[1][0], MASK.T)
    picture = Image.fromarray((~MASK).astype(np.uint8), mode="P")  # red is 0, black is 1
    picture.putpalette([*RED_PALETTE[3:], 0, 0, 0])
    picture.save(tmp_path / "label.png")
    if mask_value is None:
        with pytest.raises(PyrasegError, match="shows its index 0 in a color and another index black"):
            load(photograph, tmp_path / "label.png", **options)
    else:
        assert np.array_equal(load(photograph, tmp_path / "label.png", **options)[1][0], MASK.T)


def test_colors_are_classes_by_their_names(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    palette = np.array([(0, 0, 0), (255, 128, 0), (9, 9, 9), (0, 0, 255)], np.uint8)
    label = write_picture(tmp_path / "label.png", palette[PICTURE])
    names = {"spleen": ["#FF8000"], "lesion": ["#0000ff"]}
    assert np.array_equal(load(photograph, label, label_names=names)[1][0], PICTURE.T)  # 1 and 3 are there
    with pytest.raises(PyrasegError, match=r"has colors named \['#0000ff'\].*assign them to a class in label_names"):
        load(photograph, label, label_names={"spleen": ["#ff8000"]})
    left_out = load(photograph, label, label_names={"spleen": ["#ff8000"], "background": ["*"]})[1][0]
    assert np.array_equal(left_out, np.where(PICTURE == 1, 1, 0).T)
    with pytest.raises(PyrasegError, match="has colors named"):  # which of two colors is the one class?
        load(photograph, label, class_names=CLASSES[:2], mask_value=255)
    swapped = load(photograph, label, label_names={**names, "Liver": ["#000000"]})[1][0]
    assert np.array_equal(swapped, np.where(PICTURE == 0, 2, PICTURE).T)
    with pytest.raises(PyrasegError, match=r"several colors, #0000ff, #ff8000, and is of one class"):
        load(photograph, {"spleen": label})


def test_what_was_painted_is_not_guessed(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((40, 40, 3), np.uint8))
    rng = np.random.default_rng(0)
    options = {"class_names": ["background", "lesion"], "mask_value": 255}
    noise = write_picture(tmp_path / "noise.png", rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    with pytest.raises(PyrasegError, match="colors, which are no classes"):
        load(photograph, noise, **options)
    for alpha, reason in ((128, "half transparent"), (0, "transparent everywhere")):
        shown = np.full((40, 40, 4), 255, np.uint8)
        shown[..., 3] = alpha
        with pytest.raises(PyrasegError, match=reason):
            load(photograph, write_picture(tmp_path / "alpha.png", shown), **options)
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(PyrasegError, match="NaN or infinity, which is no class"):
        load(photograph, tmp_path / "nan.tif", **options)
    pages = [Image.new("L", (40, 40)), Image.new("L", (40, 40), 255)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(PyrasegError, match="holds 2 pictures"):
        load(photograph, tmp_path / "pages.tif", **options)


def test_a_gray_mask_that_a_jpeg_holds_as_rgb_is_gray(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((40, 40, 3), np.uint8))
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 5:20] = 255
    Image.fromarray(np.stack([mask] * 3, 2)).save(tmp_path / "label.jpg", quality=60)
    options = {"class_names": ["background", "lesion"], "mask_value": 255}
    with pytest.raises(PyrasegError, match=r"beside 0 and 255\. Correct the mask, or set a threshold"):
        load(photograph, tmp_path / "label.jpg", **options)
    assert np.array_equal(load(photograph, tmp_path / "label.jpg", **options, threshold=128)[1][0], mask.T > 0)


def test_masks_of_255(tmp_path: Path) -> None:
    binary = {"class_names": ["background", "lesion"], "mask_value": 255}
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    whole = write_picture(tmp_path / "label.png", np.where(PICTURE == 1, 255, 0).astype(np.uint8))
    assert np.array_equal(load(photograph, whole, **binary)[1][0], PICTURE.T == 1)
    blurred = write_picture(tmp_path / "blurred.png", np.array([0, 128, 100, 200], np.uint8)[PICTURE])
    with pytest.raises(PyrasegError, match="holds the values 128, 200 beside 0 and 255"):
        load(photograph, blurred, **binary)
    assert np.array_equal(load(photograph, blurred, **binary, threshold=150)[1][0], PICTURE.T == 3)


@pytest.mark.parametrize("options", [{"class_names": CLASSES}, {"class_names": CLASSES[:2], "threshold": 0.5}])
def test_pixels_that_nobody_labeled_are_told_apart(tmp_path: Path, options: dict) -> None:
    photograph = write_picture(tmp_path / "image.png", np.zeros((*PICTURE.shape, 3), np.uint8))
    stored = np.where(PICTURE == 3, 9, np.minimum(PICTURE, 1)).astype(np.uint8)
    label = write_picture(tmp_path / "label.png", stored)
    found = load(photograph, label, unknown_value=9, **options)[1][0]
    assert np.array_equal(found, np.where(stored == 9, UNKNOWN, stored).T)

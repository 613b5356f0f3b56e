# SPDX-License-Identifier: Apache-2.0
"""Photographs are read as viewers show them: all orientations and formats, one picture, in bounds."""

import logging
import multiprocessing
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.core import PyrasegError, is_upright, open_photograph, read_photograph
from bundle.pyraseg.core.photographs import pixels_of

#: By orientation, how what is shown was stored: tag 274 says on which sides its first row and first column lie
#: (CIPA DC-008 (Exif), section 4.6.5.1; TIFF 6.0 section 8).
STORED = {
    1: lambda shown: shown,  # top, left
    2: lambda shown: shown[:, ::-1],  # top, right
    3: lambda shown: shown[::-1, ::-1],  # bottom, right
    4: lambda shown: shown[::-1],  # bottom, left
    5: lambda shown: shown.swapaxes(0, 1),  # left, top
    6: lambda shown: shown[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda shown: shown[::-1].swapaxes(0, 1),  # left, bottom
}


def letter(rows: int = 48, columns: int = 32) -> np.ndarray:
    """Return a letter F in a color, which no turn maps onto itself, (rows, columns, 3)."""
    shown = np.full((rows, columns, 3), (224, 180, 160), np.uint8)
    shown[8:40, 8:12] = shown[8:12, 8:24] = shown[20:24, 8:16] = (90, 50, 40)
    return shown


def write(path: Path, pixels: np.ndarray, orientation: int | None = None, **options: object) -> Path:
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_the_orientation_of_the_file_is_applied_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    shown = letter()
    options = {"webp": {"lossless": True}, "jpg": {"quality": 98, "subsampling": 0}}.get(suffix, {})
    read = read_photograph(
        write(tmp_path / f"a.{suffix}", STORED[orientation](shown), orientation, **options), rgb=True
    )
    assert read.shape == shown.shape
    assert np.abs(read.astype(int) - shown).max() <= (10 if suffix == "jpg" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path, orientation: int) -> None:
    assert np.array_equal(read_photograph(write(tmp_path / "a.png", letter(), orientation)), letter())


def test_broken_exif_data_are_told_and_turn_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(letter()).save(tmp_path / "a.png", exif=b"Exif\0\0no header of a TIFF")
    for _ in range(3):
        assert np.array_equal(read_photograph(tmp_path / "a.png"), letter())
    assert caplog.text.count("a.png: its EXIF data cannot be read") == 1


def test_a_turned_image_keeps_no_tag(tmp_path: Path) -> None:
    image = open_photograph(write(tmp_path / "a.jpg", letter(), 6))
    image.save(tmp_path / "again.jpg", exif=image.getexif())
    with Image.open(tmp_path / "again.jpg") as again:
        assert 274 not in again.getexif() and again.size == image.size == (48, 32)


def test_gray_of_many_bits_is_turned_too(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    for suffix, orientation in product(("png", "tif"), STORED):
        path = write(tmp_path / f"a.{suffix}", STORED[orientation](values), orientation)
        assert np.array_equal(read_photograph(path), values) and read_photograph(path).dtype == np.float32
        with pytest.raises(PyrasegError, match="more than 8 bits"):
            read_photograph(path, rgb=True)


@pytest.mark.parametrize("suffix", ["tif", "png", "webp", "jpg"])
def test_of_several_pictures_the_first_is_used_and_told(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    pages = [Image.fromarray(part) for part in (letter(), 255 - letter(), letter()[::-1])]
    options = {"format": "MPO"} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:], **options)
    assert np.abs(read_photograph(tmp_path / f"a.{suffix}").astype(int) - letter()).max() < 60  # the others: > 100
    read_photograph(tmp_path / f"a.{suffix}")
    assert caplog.text.count(f"a.{suffix} holds 3 pictures, of which the first is used") == 1
    with pytest.raises(PyrasegError, match=r"holds 3 pictures\. A label is one"):
        open_photograph(tmp_path / f"a.{suffix}", alone=True)


def test_reduced_copies_of_a_pyramid_are_no_pages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, small = Image.fromarray(letter()), Image.fromarray(letter()[::2, ::2])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    whole.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 2
    assert np.array_equal(read_photograph(tmp_path / "a.tif"), letter())
    assert not caplog.text


def test_no_warning_for_one_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "bundle")
    read_photograph(write(tmp_path / "a.jpg", letter(), 3))
    assert not [record for record in caplog.records if record.name.startswith("bundle")]


def claim(path: Path, width: int, height: int) -> Path:
    """Write a PNG of a hundred bytes that claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


@pytest.mark.parametrize("size", [(20_000, 15_001), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_beyond_the_bound_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(PyrasegError, match=r"a\.png has more than 300,000,000 pixels.*PYRASEG_MAX_PIXELS"):
        read_photograph(claim(tmp_path / "a.png", *size))


def test_the_bound_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.png", letter())
    monkeypatch.setenv("PYRASEG_MAX_PIXELS", str(48 * 32 - 1))
    with pytest.raises(PyrasegError, match=r"more than 1,535 pixels \(32 x 48\)"):
        read_photograph(path)
    monkeypatch.setenv("PYRASEG_MAX_PIXELS", str(48 * 32))
    assert np.array_equal(read_photograph(path), letter())
    monkeypatch.setenv("PYRASEG_MAX_PIXELS", "1e9")
    with pytest.raises(PyrasegError, match="is '1e9' in the environment, not a number"):
        read_photograph(path)


def test_the_bound_of_other_users_of_pillow_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", own := 48 * 32)
    write(tmp_path / "a.png", letter(48, 32))
    write(tmp_path / "large.png", letter(480, 320), 6)
    (tmp_path / "broken.png").write_bytes(b"no picture")

    def read(name: str) -> str:
        try:
            return str(read_photograph(tmp_path / name).shape)
        except PyrasegError:
            return "refused"

    names = ["a.png", "large.png", "broken.png", "large.png"] * 10
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, names)) == ["(48, 32, 3)", "(320, 480, 3)", "refused", "(320, 480, 3)"] * 10
    assert not is_upright(tmp_path / "large.png")
    assert own == Image.MAX_IMAGE_PIXELS
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "large.png")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_process_forked_while_another_thread_reads_reads_too(tmp_path: Path) -> None:
    write(tmp_path / "a.png", letter())
    reading, over = threading.Event(), threading.Event()

    def read() -> None:
        while not over.is_set():
            read_photograph(tmp_path / "a.png")
            reading.set()

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait()
    try:
        children = [multiprocessing.get_context("fork").Process(target=read_photograph, args=(tmp_path / "a.png",))
                    for _ in range(20)]  # fmt: skip
        for child in children:
            child.start()
        for child in children:
            child.join(10)
        codes = [child.exitcode for child in children]
    finally:
        over.set()
        for child in children:
            child.kill()
    thread.join()
    assert codes == [0] * 20


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (7, 5)])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "I;16", "F"])
def test_pixels_are_copied_in_bands(size: tuple[int, int], mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.pyraseg.core.photographs._BAND", 14)
    shape = (size[1], size[0], 3) if mode == "RGB" else size[::-1]
    values = np.random.default_rng(0).integers(0, 255, shape)
    values = values.astype({"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8))
    image = Image.fromarray(values, mode="P") if mode == "P" else Image.fromarray(values)
    assert image.mode == mode
    assert np.array_equal(pixels_of(image), values) and pixels_of(image).dtype == values.dtype

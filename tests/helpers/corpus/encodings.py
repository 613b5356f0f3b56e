# SPDX-License-Identifier: Apache-2.0
"""Transfer syntaxes, and how values stand in their bits."""

import base64
from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.helpers.corpus.ct import ct
from tests.helpers.corpus.form import Form, Slice, Stack, joined
from tests.helpers.corpus.writing import numbers, planes
from tests.helpers.dicom_files import lut_item

#: `numbers((2, 8, 10))` as HTJ2K, lossless, by OpenJPH 0.26 (imagecodecs).
HTJ2K = (
    "/0//UQApQAAAAAAKAAAACAAAAAAAAAAAAAAACgAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCI"
    "kJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAANsAAf+TwAAmM/UFB3QAAMAAEoCNAQd0AMAA"
    "EsAAE0AAEwCkAQd0ACrlACI0AJ/8Aod0AMAAFTAABXQAAVT/X0tO8AECtAD/eczD3nn1zgAxgL2WAP7hgz/wrwHDNADAAC6OAAF0"
    "cAALo/7/H/9zf/3j/39DVar+9c//f8c//qVqqgCnl25QfIQA6XsA/v8//2k//fOf/3vvf1rtn1H/Z6hptX9H/Q7z5yheQgBM2gD+"
    "53//b/9r/3r/f/9//p//d3//f/9+/3/3OfdPOH5SgYy6AP/Z",
    "/0//UQApQAAAAAAKAAAACAAAAAAAAAAAAAAACgAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCI"
    "kJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAANwAAf+TwAAmH/UFB3QAAMAAEoCyAQd0AMAA"
    "EsAAE8AAEoDoAAd0ADKu/gIBdAAGAgd0AMAAFTAABWwAAVTuXZtGWgFDNADuuXnW5878AGMB+zYAH/U1P/bDAYG0AMAALo4AAXRw"
    "AAul/3s//3T/f/lfqlA1/3y//3Qf/vXP/1M6VR2LlnApCAJ4egD/e7/+6Z//eR//fOd/rfrPqLXqn6P2/ygAU+3nKP5CAVybAP73"
    "/35f/2v/ft//f7//e7//b/99f/7f/38AOC/PXMD5SgE5fAD/2Q==",
)
#: Values that lossy JPEG keeps: the same in each block of 8 x 8.
FLAT = np.repeat(np.repeat(numbers((4, 2, 3)), 8, axis=1), 8, axis=2)


#: OpenJPEG makes six resolutions, and so nothing smaller than 32 pixels.
WIDE = numbers((4, 36, 40))


def encoded(syntax: UID, stored: np.ndarray | None = None) -> Callable[[Path], list[Stack]]:
    return lambda folder: [ct(folder, stored=stored, syntax=syntax)]


def by_gdcm(syntax: int, *, lossy: bool = False) -> Callable[[Path], object]:
    """Return what encodes a file anew with GDCM."""

    def encode(path: Path) -> None:
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        codec = gdcm.JPEGCodec()
        if lossy:
            codec.SetLossless(False)
            codec.SetQuality(100)
            change.SetUserCodec(codec)
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()

    return encode


def lossless(folder: Path) -> list[Stack]:
    return [ct(folder, finish=by_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14_1))]


def extended(folder: Path) -> list[Stack]:
    return [ct(folder, stored=FLAT, finish=by_gdcm(gdcm.TransferSyntax.JPEGExtendedProcess2_4, lossy=True))]


def htj2k(folder: Path) -> list[Stack]:
    streams = {f"IM{k:04d}.dcm": base64.b64decode(stream) for k, stream in enumerate(HTJ2K)}

    def replace(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        dataset.PixelData = encapsulate([streams[path.name]])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
        dataset.save_as(path)

    return [ct(folder, stored=numbers((2, 8, 10)), finish=replace)]


def several(folder: Path) -> list[Stack]:
    """A PACS has encoded some slices anew."""
    where, stored = planes(), numbers((6, 36, 40))
    syntaxes = (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless)
    parts = [
        ct(
            folder,
            where[2 * k : 2 * k + 2],
            stored[2 * k : 2 * k + 2],
            first=1 + 2 * k,
            syntax=syntax,
            name=lambda index, k=k: f"IM{k}_{index}",
        )
        for k, syntax in enumerate(syntaxes)
    ]
    return [joined(parts)]


def rewritten(change: Callable[[np.ndarray], np.ndarray], **attributes: object) -> Callable[[Path], object]:
    """Return what changes the words of a file, and attributes that describe them."""

    def finish(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        words = np.frombuffer(dataset.PixelData, "<u2")
        dataset.PixelData = change(words).astype("<u2").tobytes()
        for name, value in attributes.items():
            setattr(dataset, name, value)
        dataset.save_as(path)

    return finish


def high_bits(folder: Path) -> list[Stack]:
    """12 bits at the upper end of the word, as older scanners wrote them (HighBit 15)."""
    return [ct(folder, finish=rewritten(lambda words: words << 4, HighBit=15))]


def overlay_bits(folder: Path) -> list[Stack]:
    """Graphics in the unused upper bits (retired), which are no part of the values."""
    return [ct(folder, finish=rewritten(lambda words: words | ((np.arange(len(words)) % 3 == 0) * 0x8000)))]


def twelve_signed(folder: Path) -> list[Stack]:
    """Negative numbers of 12 bits, whose upper bits are clear."""
    finish = rewritten(lambda words: words & 0x0FFF)
    return [ct(folder, stored=numbers(signed=True), intercept=0.0, finish=finish)]


def odd_length(folder: Path) -> list[Stack]:
    """8 bits and an odd number of pixels: a byte follows that is none."""
    return [ct(folder, stored=numbers((3, 7, 9), bits=8), BitsStored=8, intercept=-100.0)]


def wide(folder: Path) -> list[Stack]:
    stored = numbers(bits=16).astype(np.uint32) * 3
    return [ct(folder, stored=stored, BitsStored=32, intercept=0.0)]


def table(folder: Path) -> list[Stack]:
    """A table instead of slope and intercept."""
    entries = (np.arange(4096) * 7 % 5000).astype("<u2")
    lut = lut_item([4096, 0, 16], entries.tobytes(), ModalityLUTType="HU")
    stack = ct(folder, intercept=0.0, ModalityLUTSequence=lut, RescaleSlope=None, RescaleIntercept=None)
    return [[Slice(entries[one.values.astype(int)].astype(float), one.plane) for one in stack]]


FORMS = [
    Form("Implicit VR", "all", encoded(ImplicitVRLittleEndian)),
    Form("Big endian", "older scanners", encoded(ExplicitVRBigEndian)),
    Form("Deflated", "some PACS", encoded(DeflatedExplicitVRLittleEndian)),
    Form("RLE", "US, PACS", encoded(RLELossless)),
    Form("JPEG lossless", "all", lossless),
    Form("JPEG-LS", "PACS", encoded(JPEGLSLossless)),
    Form("JPEG 2000", "PACS", encoded(JPEG2000Lossless, WIDE)),
    Form("HTJ2K", "cloud archives", htj2k),
    Form("JPEG of 12 bits, lossy", "Philips, older PACS", extended),
    Form("Several transfer syntaxes in a series", "PACS", several),
    Form("12 bits at the upper end of the word", "older scanners", high_bits),
    Form("Graphics in the unused bits", "GE, older scanners", overlay_bits),
    Form("Negative numbers of 12 bits", "GE, Siemens", twelve_signed),
    Form("8 bits, an odd number of pixels", "all", odd_length),
    Form("32 bits", "dose, research", wide),
    Form("A table instead of slope and intercept", "some CT", table),
]

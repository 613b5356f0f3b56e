# SPDX-License-Identifier: Apache-2.0
"""Decode JPEG of 12 bits (JPEG Extended, process 4) by GDCM: a plugin of pydicom, whose own ones refuse it.

GDCM's result is that of libjpeg-turbo, which imagecodecs brings, to the last value (tests/dicom/test_jpeg12.py has it).
"""

import os
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

from pydicom.pixels.decoders import JPEGExtended12BitDecoder
from pydicom.uid import JPEGExtended12Bit

#: What pydicom asks of a plugin.
DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("python-gdcm>=3.2.6",)}
#: Bits of a stream: what the standard has, and what GDCM writes.
DEPTHS = (12, 16)
_START, _EXTENDED, _SCAN = b"\xff\xd8", 0xC1, 0xDA
_ATTEMPTS = (b"Unsupported JPEG data precision 12", b"Invalid SOS parameters for sequential JPEG")
_CONSOLE = threading.Lock()  # the console is one for all threads
_ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a length


def is_available(uid: str) -> bool:
    """Return whether the transfer syntax is decoded here."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: Any) -> bytes:
    """Return the values of one gray frame, two bytes each.

    Args:
        src: the JPEG.
        runner: of pydicom, which knows what the header says.

    Raises:
        ValueError: the JPEG is none of 12 bits and of the size that the header has, or it is damaged.
    """
    import gdcm  # no other encoding needs it here

    bits, *size = _frame(src)
    if bits not in DEPTHS or size != [runner.rows, runner.columns, 1] or runner.bits_allocated != 16:
        raise ValueError("The JPEG has other pixels than the header says.")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(src)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, runner.pixel_representation))
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(JPEGExtended12Bit))))
    image.SetDataElement(element)
    with _without_attempts():
        values = image.GetBuffer()
    decoded = values.encode("utf-8", "surrogateescape") if isinstance(values, str) else b""
    if len(decoded) != 2 * runner.rows * runner.columns:
        raise ValueError("The JPEG is damaged.")
    return decoded


@contextmanager
def _without_attempts() -> Generator[None]:
    """Take from the console what GDCM's decoders of other depths write there: they are tried before that of 12 bits.

    What else is written meanwhile comes a moment later.
    """
    with _CONSOLE, TemporaryFile() as kept:
        console = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(console, 2)
            os.close(console)
            kept.seek(0)
            others = [line for line in kept if line.strip() not in _ATTEMPTS]
            if others:
                os.write(2, b"".join(others))


def _frame(src: bytes) -> tuple[int, int, int, int]:
    """Return bits, rows, columns and components of a JPEG, extended sequential (ITU-T T.81 B.2.2); or zeros."""
    place = 2 if src[:2] == _START else len(src)
    while place + 10 <= len(src) and src[place] == 0xFF:
        marker = src[place + 1]
        if marker == _EXTENDED:
            bits, rows, columns, components = struct.unpack_from(">BHHB", src, place + 4)
            return bits, rows, columns, components
        if marker == _SCAN:
            break
        place += 1 if marker == 0xFF else 2 if marker in _ALONE else 2 + struct.unpack_from(">H", src, place + 2)[0]
    return 0, 0, 0, 0


def register() -> None:
    """Let pydicom decode JPEG of 12 bits."""
    if "pyraseg" not in JPEGExtended12BitDecoder.available_plugins:
        JPEGExtended12BitDecoder.add_plugin("pyraseg", (__name__, "decode_frame"))

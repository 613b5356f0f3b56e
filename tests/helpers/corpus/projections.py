# SPDX-License-Identifier: Apache-2.0
"""Images without a place in a stack: radiographs, ultrasound, angiography, photographs."""

import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import MPEG4HP41, JPEGBaseline8Bit, RLELossless

from tests.helpers.corpus.form import Form, Slice, Stack
from tests.helpers.corpus.writing import CLASSES, SIZE, header, numbers, uid, write_slices
from tests.helpers.dicom_files import lut_item, make_image, save


def gray(folder: Path, modality: str, stored: np.ndarray | None = None, **options) -> list[Stack]:
    """Write single images without a place; each is a stack of one."""
    stored = numbers((1, 30, 25)) if stored is None else stored
    options = {
        "BitsStored": 12,
        "PatientOrientation": ["L", "F"],
        **header(modality, modality, FrameOfReferenceUID=None, SliceThickness=None, ImageType=["DERIVED", "PRIMARY"]),
        **options,
    }
    stack = write_slices(folder, stored, [None] * len(stored), **options)
    return [[one] for one in stack]


def color(path: Path, pixels: np.ndarray, modality: str, **options: object) -> Stack:
    """Write RGB (rows, columns, 3) or frames of it, as they are, and return it."""
    frames = pixels if pixels.ndim == 4 else pixels[None]
    options = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "Rows": frames.shape[1],
        "Columns": frames.shape[2],
        "InstanceNumber": 1,
        "SOPInstanceUID": uid(path.name, modality),
        **header(modality, modality, FrameOfReferenceUID=None, SliceThickness=None),
        **options,
    }
    if len(frames) > 1:
        options["NumberOfFrames"] = len(frames)
    syntax = options.pop("syntax", None)
    dataset = make_image(pixels.tobytes(), **options)
    save(dataset, path, **({"syntax": syntax} if syntax else {}))
    return [Slice(frame, None) for frame in frames]


def painted(count: int = 1, *, block: int = 1) -> np.ndarray:
    """Return RGB frames (count, rows, columns, 3) of 32 x 24 pixels, in blocks of one color."""
    rng = np.random.default_rng(3)
    small = rng.integers(30, 225, (count, 32 // block, 24 // block, 3)).astype(np.uint8)
    return np.repeat(np.repeat(small, block, axis=1), block, axis=2)


def inverted(folder: Path) -> list[Stack]:
    return gray(folder, "CR", PhotometricInterpretation="MONOCHROME1")


def digital(folder: Path) -> list[Stack]:
    lut = lut_item([4096, 0, 12], np.arange(4096, dtype="<u2")[::-1].tobytes())
    return gray(
        folder,
        "DX",
        VOILUTSequence=lut,
        PresentationIntentType="FOR PRESENTATION",
        PresentationLUTShape="IDENTITY",
        ImagerPixelSpacing=[0.14, 0.14],
    )


def empty_table(folder: Path) -> list[Stack]:
    """A table of presentation that has no entries, beside a window."""
    return gray(
        folder,
        "DX",
        VOILUTSequence=Sequence(),
        WindowCenter=2000,
        WindowWidth=4000,
        PresentationIntentType="FOR PRESENTATION",
    )


def for_processing(folder: Path) -> list[Stack]:
    return gray(
        folder,
        "MG",
        PresentationIntentType="FOR PROCESSING",
        SOPClassUID=f"{CLASSES['MG']}.1",
        ViewPosition="CC",
        ImageLaterality="L",
    )


def mammograms(folder: Path) -> list[Stack]:
    """Two views of both breasts in one series, of two sizes."""
    stacks = []
    for number, (side, view) in enumerate([("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]):
        stored = numbers((1, 30 + number // 2, 25), start=number)
        own = {"ImageLaterality": side, "ViewPosition": view, "first": number + 1, "name": lambda k, n=number: f"MG{n}"}
        stacks += gray(folder, "MG", stored, PresentationIntentType="FOR PRESENTATION", **own)
    return stacks


def chest(folder: Path) -> list[Stack]:
    """From the front and from the side, of one size."""
    stacks = []
    for number, view in enumerate(("PA", "LL")):
        own = {"ViewPosition": view, "first": number + 1, "name": lambda k, n=number: f"DX{n}"}
        stacks += gray(folder, "DX", numbers((1, 30, 25), start=number), **own)
    return stacks


def ultrasound(folder: Path) -> list[Stack]:
    return [color(folder / "US1", painted()[0], "US")]


def planar(folder: Path) -> list[Stack]:
    """Colors one after the other."""
    pixels = painted()[0]
    stack = color(folder / "US1", pixels, "US", PlanarConfiguration=1)
    dataset = pydicom.dcmread(folder / "US1")
    dataset.PixelData = np.moveaxis(pixels, 2, 0).tobytes()
    dataset.save_as(folder / "US1")
    return [stack]


def palette(folder: Path) -> list[Stack]:
    rng = np.random.default_rng(5)
    tables = rng.integers(0, 256, (3, 256)).astype(np.uint8)
    index = numbers((1, 30, 24), bits=8)
    named = {}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        named[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        named[f"{name}PaletteColorLookupTableData"] = (table.astype("<u2") * 257).tobytes()
    gray(
        folder,
        "US",
        index,
        BitsStored=8,
        PhotometricInterpretation="PALETTE COLOR",
        RescaleSlope=None,
        RescaleIntercept=None,
        **named,
    )
    return [[Slice(np.moveaxis(tables[:, index[0]], 0, 2), None)]]


def cine(folder: Path) -> list[Stack]:
    """A film: YBR in JPEG, a frame each."""
    frames = painted(4, block=16)
    streams = []
    for frame in frames:
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, format="JPEG", quality=100, subsampling=0)
        streams.append(stream.getvalue())
    sop = "1.2.840.10008.5.1.4.1.1.3.1"
    color(folder / "US1", frames, "US", SOPClassUID=sop, FrameTime=40)
    dataset = pydicom.dcmread(folder / "US1")
    dataset.PixelData = encapsulate(streams)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.PhotometricInterpretation = "YBR_FULL"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(folder / "US1")
    meant = np.stack([np.asarray(Image.open(io.BytesIO(stream)).convert("RGB")) for stream in streams])
    return [[Slice(frame, None) for frame in meant]]


def run(folder: Path, modality: str, **options) -> list[Stack]:
    """Write a run of frames in one object, without places."""
    stored = numbers((5, *SIZE[1:]), bits=8)
    options = {
        "BitsStored": 8,
        "InstanceNumber": 1,
        **header(modality, modality, FrameOfReferenceUID=None, SliceThickness=None),
        **options,
    }
    save(make_image(stored, SOPInstanceUID=uid(modality), **options), folder / "RUN")
    return [[Slice(frame.astype(float), None) for frame in stored]]


def photograph(folder: Path) -> list[Stack]:
    return [color(folder / "XC1", painted()[0], "XC")]


def slide(folder: Path) -> list[Stack]:
    """Two tiles of a slide."""
    tiles = painted(2)
    own = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6", "TotalPixelMatrixColumns": 48, "TotalPixelMatrixRows": 32}
    stack = color(folder / "SM1", tiles, "SM", ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], **own)
    return [[one] for one in stack]


def video(folder: Path) -> list[Stack]:
    """MPEG, of which only the header counts here."""
    stack = color(folder / "ES1", painted(2), "ES", SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.1.1", FrameTime=40)
    dataset = pydicom.dcmread(folder / "ES1")
    dataset.PixelData = encapsulate([bytes(200)])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = MPEG4HP41
    dataset.save_as(folder / "ES1")
    return [[one] for one in stack]


def as_png(folder: Path, message: str, work: Path) -> list[tuple[object, dict]]:
    """Save what is to be segmented as PNG."""
    assert "as PNG" in message, message
    found = []
    for number, frame in enumerate(painted(2)):
        found.append((work / f"{number}.png", {}))
        Image.fromarray(frame).save(work / f"{number}.png")
    return found


FORMS = [
    Form("CR, low values white (MONOCHROME1)", "Fuji, Agfa", inverted, happens="read; a window inverts it once"),
    Form("DX with a table of presentation", "Carestream, Philips", digital),
    Form("DX with an empty table of presentation", "some PACS", empty_table),
    Form("MG, for processing", "Hologic", for_processing, happens="read; it has no window for display"),
    Form("MG, CC and MLO of both sides in a series", "all", mammograms, happens="four inputs"),
    Form("DX, PA and lateral in a series", "all", chest, happens="two inputs"),
    Form("DX with a frame of reference", "GE", lambda folder: gray(folder, "DX", FrameOfReferenceUID=uid("detector"))),
    Form("US, RGB", "GE, Philips", ultrasound),
    Form("US, RGB, colors one after the other", "older scanners", planar),
    Form("US, palette", "older scanners", palette),
    Form("US, RLE", "GE", lambda folder: [color(folder / "US1", painted()[0], "US", syntax=RLELossless)]),
    Form("US, film of JPEG", "Philips, GE", cine),
    Form("XA, film", "Siemens, Philips", lambda folder: run(folder, "XA", FrameTime=66)),
    Form("RF, film", "Siemens", lambda folder: run(folder, "RF", FrameTime=66)),
    Form("Endoscope", "Olympus", lambda folder: [color(folder / "ES1", painted()[0], "ES")]),
    Form("Photograph", "dermatoscopes", photograph),
    Form("Photograph of the eye", "Topcon, Zeiss", lambda folder: [color(folder / "OP1", painted()[0], "OP")]),
    Form(
        "Whole slide",
        "Leica, Philips",
        slide,
        "refused by its name: save a region as PNG",
        refused=("whole slide",),
        remedy=as_png,
    ),
    Form(
        "Video", "Olympus, Storz", video, "refused by its name: save frames as PNG", refused=("video",), remedy=as_png
    ),
]

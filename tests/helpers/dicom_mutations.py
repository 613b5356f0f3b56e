# SPDX-License-Identifier: Apache-2.0
"""Damage real DICOM files, reproducibly: elements that are missing, empty, of another type or out of range.

As a program it reads such files one by one and prints what became of each. A file that takes longer than `LIMIT` or
ends the process in a decoder's C++ code is the last one to be printed, without an end.
"""

import random
import signal
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.reader import MedicalImageReader

LIMIT = 20  # seconds a file
FOLDERS = ("dicom_robustness", "ct_abdomen/dicom", "ct_liver_dicom_seg", "ct_rtstruct")

# What reading an image looks at; most mutations hit one of these.
_USED = (
    "Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation PlanarConfiguration BitsAllocated "
    "BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept "
    "WindowCenter WindowWidth VOILUTFunction VOILUTSequence ModalityLUTSequence PresentationLUTShape "
    "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness Modality SOPClassUID "
    "SeriesInstanceUID ImageType InstanceNumber RedPaletteColorLookupTableDescriptor "
    "RedPaletteColorLookupTableData LUTDescriptor LUTData SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence SpecificCharacterSet PixelData"
)
USED = [Tag(keyword) for keyword in _USED.split()]
TEXTS = ("", "  ", "NaN ", "inf ", "-1", "0 ", "1e308 ", "-9999999999999999999", "1\\2\\3\\4 ", "\\\\", "x" * 64)
BINARY = (b"\xff\xff", b"\x00\x80", b"\x00\x00", b"\x01", b"\xff\xff\xff\x7f", b"\x00" * 7, b"\xff" * 300)
VALUES = [*(text.encode() for text in TEXTS), *BINARY]
VRS = ("US", "SS", "UL", "DS", "IS", "FD", "UI", "LO", "CS", "OB", "OW", "UN", "SQ", "AT", "DA", "PN")


def mutate(source: Path, target: Path, seed: int) -> str:
    """Write a damaged copy of a file and return what was done to it."""
    rng = random.Random(seed)
    if rng.random() < 0.15:
        return _damage_bytes(source, target, rng)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(source, force=True)
            dataset.PatientName = "SECRET^NAME"
            done = [_damage_element(dataset, rng) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
            pydicom.dcmwrite(target, dataset, enforce_file_format=False)
    except Exception:  # beyond what pydicom writes
        return _damage_bytes(source, target, rng)
    return "; ".join(done)


def _damage_bytes(source: Path, target: Path, rng: random.Random) -> str:
    """Cut the file short, or overwrite a few bytes of its header."""
    content = bytearray(source.read_bytes())
    if rng.random() < 0.3:
        del content[rng.randrange(len(content)) :]
        done = f"cut to {len(content)} bytes"
    else:
        places = [rng.randrange(128, min(len(content), 4000)) for _ in range(rng.choice((1, 3, 20)))]
        for place in places:
            content[place] = rng.randrange(256)
        done = f"overwritten at {places}"
    target.write_bytes(content)
    return done


def _damage_element(dataset: Dataset, rng: random.Random) -> str:
    places = _elements(dataset)
    used = [place for place in places if place[1] in USED]
    owner, tag = rng.choice(used if used and rng.random() < 0.7 else [*places, (dataset, rng.choice(USED))])
    old = owner.get_item(tag)
    vr = dictionary_VR(tag)[:2] if dictionary_has_tag(tag) else "UN"
    value = rng.choice(VALUES)
    kind = rng.choice(("removed", "emptied", "replaced", "retyped", "repeated", "an empty item"))
    if kind == "removed":
        owner._dict.pop(tag, None)
        return f"{tag} removed"
    if kind == "an empty item":
        owner._dict[tag] = DataElement(tag, "SQ", Sequence([Dataset()]))
        return f"{tag} replaced by an empty item"
    if kind == "emptied":
        value = b""
    elif kind == "retyped":
        vr = rng.choice(VRS)
    elif kind == "repeated" and isinstance(old, RawDataElement) and old.value and len(old.value) < 64:
        value = b"\\".join([old.value] * 3)
    value += b"\0" * (len(value) % 2)
    owner._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)  # written as it stands
    return f"{tag} {kind}: {vr} {value[:32]!r}"


def _elements(dataset: Dataset, depth: int = 0) -> list[tuple[Dataset, BaseTag]]:
    """Return every element as the dataset that holds it and its tag, those of sequence items too."""
    found = []
    for tag in list(dataset.keys()):
        found.append((dataset, tag))
        if dataset.get_item(tag).VR == "SQ" and depth < 3:
            found += [place for item in list(dataset[tag].value)[:2] for place in _elements(item, depth + 1)]
    return found


def main(data: Path, count: int) -> None:
    """Print a line for each of `count` damaged files: its number, its source, what was done, what became of it."""
    files = sorted(path for folder in FOLDERS for path in (data / folder).rglob("*") if path.is_file())
    sources = [path for path in files if path.suffix == ".dcm" or path.name.startswith("CT.")]
    with TemporaryDirectory() as folder:
        target = Path(folder) / "damaged"
        for seed in range(count):
            source = sources[seed % len(sources)]
            print(f"\n{seed} {source.name} {mutate(source, target, seed)}", end=": ", flush=True)
            signal.alarm(LIMIT)  # ends this process, wherever it hangs
            try:
                array, _ = MedicalImageReader().get_data([target])
                print("read" if np.isfinite(array).all() else "wrong", array.shape, end="")
            except PyrasegError as error:
                print("refused", str(error).replace("\n", " "), end="")
            signal.alarm(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

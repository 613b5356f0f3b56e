#!/usr/bin/env bash
# The first bytes of a DICOM object, as a range request brings them, are read by pydicom as a whole header: of a
# multi-frame image with 600 frames it returns the positions of some, without an error or a warning.
#
# Surprise: `dcmread(..., stop_before_pixels=True)` of a header that is cut off is expected to raise, or to warn that the
#   file ends before the pixels. Where the cut falls between two elements or items it does neither: the sequence has as
#   many items as there were bytes for, and the attributes behind it are missing. Elsewhere it raises struct.error.
# Why: the end of a file ends a data set, and a sequence whose stated length goes beyond it.
# Hurt: whoever reads headers from object storage by a range of bytes, as indices of archives are made: whether 5,000
#   or 65,536 bytes are enough depends on the number of frames, and a table with wrong numbers of slices and spans comes
#   out.
# Source: pydicom 3.0.2 (filereader: read_dataset, read_sequence).
# Pyraseg: counts a header that reaches the end of what was read as cut off, and reads the whole object
#   (pyraseg_tools/archive/listing.py, `head_of`).
set -euo pipefail

packages=(pydicom==3.0.2 numpy==2.4.6)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$folder/venv"
    python=$folder/venv/bin/python
    "$python" -m pip install --quiet "${packages[@]}"
fi
cd "$folder"
"$python" - "${packages[@]}" <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version

for name, pinned in (package.split("==") for package in sys.argv[1:]):
    try:
        installed = version(name)
    except PackageNotFoundError:
        installed = "is not installed"
    print(name, installed)
    if installed.partition("+")[0] != pinned:
        print(f"This finding is about {name} {pinned}.")
        sys.exit(2)
PYTHON
cat > finding.py <<'PYTHON'
import io
import struct
import sys
import warnings

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

FRAMES = 600
image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
image.Modality, image.NumberOfFrames, image.Rows, image.Columns = "CT", FRAMES, 4, 4
image.BitsAllocated = image.BitsStored = 16
image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 0, 1
image.PhotometricInterpretation = "MONOCHROME2"
image.PerFrameFunctionalGroupsSequence = []
for number in range(FRAMES):
    place, group = Dataset(), Dataset()
    place.ImagePositionPatient = [0.0, 0.0, float(number)]
    group.PlanePositionSequence = [place]
    image.PerFrameFunctionalGroupsSequence.append(group)
image.PixelData = np.zeros((FRAMES, 4, 4), np.uint16).tobytes()
stream = io.BytesIO()
image.save_as(stream, enforce_file_format=True)
whole = stream.getvalue()

warnings.simplefilter("error")
quiet, raised, least = [], 0, FRAMES
for size in range(2000, 30000, 100):
    try:
        header = pydicom.dcmread(io.BytesIO(whole[:size]), stop_before_pixels=True)
        found = len(header.PerFrameFunctionalGroupsSequence)
    except (struct.error, OSError, EOFError, Warning):
        raised += 1
        continue
    if header.NumberOfFrames == FRAMES and found < FRAMES:
        quiet.append((size, found))
print(f"Expected: of 280 headers that are cut off ({FRAMES} frames, {len(whole)} bytes in all), each raises or warns")
if quiet:
    print(f"Seen: {raised} raise; {len(quiet)} are returned, such as {quiet[0][0]} bytes with {quiet[0][1]} positions "
          f"for {FRAMES} frames, and {quiet[-1][0]} bytes with {quiet[-1][1]}")
sys.exit(0 if len(quiet) >= 10 else "The behavior has changed.")
PYTHON
"$python" finding.py

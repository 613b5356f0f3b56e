#!/usr/bin/env bash
# ITK straightens a CT with a tilted gantry: its last slice lies centimeters from where the header has it.
#
# Surprise: of 30 slices with a tilt of 15 degrees, 4 mm apart, the last one is 31 mm off in ITK, and the slice
#   spacing is 4.14 mm, so that volumes are 3.5 % too large. No exception, no warning. MONAI's PydicomReader places it
#   rightly, and LoadImage without a named reader takes ITK where it is installed.
# Why: an ITK image has an orthogonal grid and cannot be sheared. The series reader takes the distance between
#   positions as the spacing and the normal of the plane as the direction. NIfTI written from it keeps the error.
# Hurt: head CT, which is tilted by habit: structure sets and SEGs drawn in patient coordinates do not fit the volume,
#   and every measure across slices is off.
# Source: itk 5.4.7, itk::ImageSeriesReader; MONAI 1.6.1, monai.data.ITKReader and PydicomReader; DICOM PS3.3
#   C.7.6.2.1.1 (the position of each slice is exact, whatever the tilt).
# Pyraseg: a tilted series gets a sheared affine, which is exact; slices are resampled in their own plane.
set -euo pipefail

packages=(monai==1.6.1 itk==5.4.7 pydicom==3.0.2 torch==2.13.0 numpy==2.4.6)
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
import math
import pathlib
import sys
import warnings

import numpy as np
from monai.transforms import LoadImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SLICES, APART, TILT = 30, 4.0, math.radians(15)
study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()


def position(number):
    """Return where the first pixel of a slice lies, in DICOM's LPS and mm."""
    return [0.0, round(number * APART * math.tan(TILT), 4), number * APART]


def write(path, number):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"  # CT
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame_of_reference
    image.Modality, image.InstanceNumber, image.SliceThickness = "CT", number + 1, APART
    image.GantryDetectorTilt = math.degrees(TILT)
    image.ImagePositionPatient, image.ImageOrientationPatient = position(number), [1, 0, 0, 0, 1, 0]
    image.Rows, image.Columns, image.PixelSpacing = 8, 8, [1, 1]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept = 1, 0
    image.PixelData = bytes(2 * 8 * 8)
    image.save_as(path, enforce_file_format=True)


folder = pathlib.Path("head")
folder.mkdir()
for number in range(SLICES):
    write(folder / f"{number:02}.dcm", number)
truth = np.array(position(SLICES - 1)) * [-1, -1, 1]  # MONAI's affines are RAS
print(f"Expected: the first pixel of the last slice at {truth.round(1).tolist()} mm, as in its header")
off, told = {}, {}
for reader in ("PydicomReader", "ITKReader"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        volume = LoadImage(reader=reader)("head")
    texts = " ".join(str(warning.message) for warning in caught).lower()
    told[reader] = any(word in texts for word in ("slice", "sampling", "tilt", "shear", "orthogonal"))
    affine = volume.affine.numpy()
    place = (affine @ [0, 0, SLICES - 1, 1])[:3]
    off[reader] = float(np.linalg.norm(place - truth))
    size = abs(float(np.linalg.det(affine[:3, :3]))) * volume.numel() / 1000
    print(f"Seen, {reader}: {place.round(1).tolist()}, {off[reader]:.1f} mm off, {size:.2f} ml; warned: {told[reader]}")
as_described = off["PydicomReader"] < 0.1 and off["ITKReader"] > 20 and not told["ITKReader"]
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py

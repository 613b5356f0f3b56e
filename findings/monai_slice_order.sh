#!/usr/bin/env bash
# MONAI's PydicomReader stacks slices by their Instance Number, wherever they lie, and says nothing when that is
# wrong.
#
# Surprise: a series numbered as it was acquired, every second slice first, comes back in that order, with an affine
#   as if the slices were in a row. Two series in a folder, 10 and 4 slices, come back as one volume in which they
#   alternate. No warning. ITKReader sorts by position; of two series it takes one, the first by UID, with a warning.
# Why: Instance Number is the key of the sort, positions are not compared with it, and the slice spacing is a mean.
#   The standard gives the number no meaning beyond identifying the image (PS3.3 C.7.6.1.1).
# Hurt: whoever points LoadImage at exported studies where itk is not installed, or names this reader. Organs are cut
#   into ribbons or squeezed, and a network trained on such volumes only looks a little worse.
# Source: MONAI 1.6.1, monai.data.PydicomReader._combine_dicom_series.
# Pyraseg: slices are sorted by position along the normal of their plane; several series are several inputs or an
#   error.
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
import pathlib
import sys
import warnings

import numpy as np
from monai.transforms import LoadImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

study, frame_of_reference = generate_uid(), generate_uid()


def write(folder, series, number, position, value):
    """Write an axial slice of one value, at a position along the patient in mm."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"  # CT
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.FrameOfReferenceUID = study, frame_of_reference
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
    image.Modality, image.InstanceNumber, image.SliceThickness = "CT", number, 3
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, position], [1, 0, 0, 0, 1, 0]
    image.Rows, image.Columns, image.PixelSpacing = 8, 8, [1, 1]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept = 1, 0
    image.PixelData = np.full((8, 8), value, np.int16).tobytes()
    pathlib.Path(folder).mkdir(exist_ok=True)
    image.save_as(f"{folder}/{series}_{number:02}.dcm", enforce_file_format=True)


for number, place in enumerate([0, 2, 4, 6, 8, 1, 3, 5, 7, 9], 1):
    write("one", "interleaved", number, 3 * place, 10 * place)
for series, slices, value in (("portal", 10, 150), ("arterial", 4, 60)):
    for place in range(slices):
        write("two", series, 1 + place, 3 * place, value)

print("Folder one: 10 slices, 3 mm apart, brighter by 10 from one to the next; numbered every second one first")
print("Folder two: 10 slices of 150 and, of another series, 4 of 60; in both 3 mm apart")
print("Expected: one: 0, 10, 20 ...; two: an error or a warning")
seen = {}
for folder in ("one", "two"):
    for reader in ("PydicomReader", "ITKReader"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            volume = LoadImage(reader=reader)(folder)
        told = [text for text in (str(warning.message) for warning in caught) if "series" in text or "slice" in text]
        values, spacing = [int(value) for value in volume[0, 0]], float(volume.affine[2, 2])
        seen[folder, reader] = values, told
        print(f"Seen, {folder}, {reader}: {values}, {spacing:.2f} mm apart; told: {told or 'nothing'}")
scrambled, told_one = seen["one", "PydicomReader"]
mixed, told_two = seen["two", "PydicomReader"]
right = seen["one", "ITKReader"][0] == sorted(scrambled)
as_described = scrambled != sorted(scrambled) and len(mixed) == 14 and not told_one and not told_two and right
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py

#!/usr/bin/env bash
# MONAI's PydicomReader shuffles two DICOM series of a folder into one volume, without a word.
#
# Surprise: a folder with two phases of a liver, 10 and 4 slices, is read as one volume of 14 in which the phases
#   alternate, with a slice spacing that neither has. ITKReader at least warns, and takes one of the two: the one
#   whose UID comes first in the alphabet.
# Why: PydicomReader stacks every DICOM file of the folder by its position. The spacing is that of the first and the
#   last slice divided by their number, so two slices in one place, a missing slice and an uneven series all pass.
# Hurt: whoever points LoadImage at exported studies. The volume looks like one with ripples; organs are stretched or
#   squeezed along the patient, and so is every volume in milliliters.
# Source: MONAI 1.6.1, monai.data.PydicomReader.read and _combine_dicom_series, monai.data.ITKReader.read.
# Pyraseg: several series are several inputs, or an error that lists them; two slices in one place are an error.
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


def write(path, series, position, value):
    """Write a CT slice of one value, at a position along the patient in mm."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"  # CT
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame_of_reference
    image.Modality, image.InstanceNumber, image.SliceThickness = "CT", 1 + position // 3, 3
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, position], [1, 0, 0, 0, 1, 0]
    image.Rows, image.Columns, image.PixelSpacing = 8, 8, [1, 1]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept = 1, 0
    image.PixelData = np.full((8, 8), value, np.int16).tobytes()
    image.save_as(path, enforce_file_format=True)


folder = pathlib.Path("study")
folder.mkdir()
for name, slices, value in (("portal", 10, 150), ("arterial", 4, 60)):
    series = generate_uid(entropy_srcs=[name])
    for number in range(slices):
        write(folder / f"{name}_{number:02}.dcm", series, 3 * number, value)

print("In the folder: 10 slices of 150 HU and 4 of 60 HU, each series 3 mm apart")
print("Expected: an error that asks which series is meant")
seen = {}
for reader in ("PydicomReader", "ITKReader"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        volume = LoadImage(reader=reader)("study")
    told = [str(warning.message) for warning in caught if "series" in str(warning.message)]
    values, spacing = [int(value) for value in volume[0, 0]], float(volume.affine[2, 2])
    seen[reader] = values, spacing, told
    print(f"Seen, {reader}: {len(values)} slices {spacing:.2f} mm apart, HU {values}")
    print(f"  warnings about it: {told or 'none'}")
values, spacing, told = seen["PydicomReader"]
sys.exit(0 if len(values) == 14 and set(values[:4]) == {150, 60} and not told else "The behavior has changed.")
PYTHON
"$python" finding.py

#!/usr/bin/env bash
# The same MONOCHROME1 file has opposite gray values in MONAI, depending on which packages are installed.
#
# Surprise: a radiograph whose small values are meant to be shown white reads -1024 to -794 with MONAI's PydicomReader
#   and 2841 to 3071, upside down, with its ITKReader. LoadImage without a reader takes the latter as soon as the itk
#   package is installed. highdicom turns it around too, though its values go under the name of rescaled ones.
# Why: ITK (GDCM) and highdicom make MONOCHROME1 into MONOCHROME2 while reading; pydicom leaves values as they are.
#   For the standard it is how to *display* the values, after the rescaling (PS3.3 C.7.6.3.1.2).
# Hurt: whoever trains where itk is installed and deploys where it is not, or turns MONOCHROME1 around a second time.
#   A network for chest X-rays is shown the negative, and still answers.
# Source: MONAI 1.6.1, monai.transforms.LoadImage; itk 5.4.7; pydicom 3.0.2; highdicom 0.28.2
#   (apply_presentation_lut).
# Pyraseg: its reader returns rescaled values and the polarity; Windowd turns around, once.
set -euo pipefail

packages=(monai==1.6.1 itk==5.4.7 pydicom==3.0.2 highdicom==0.28.2 torch==2.13.0 numpy==2.4.6)
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
import sys
import warnings

import highdicom
import numpy as np
from monai.transforms import LoadImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

warnings.simplefilter("ignore")
stored = np.arange(24, dtype=np.uint16).reshape(4, 6) * 10  # 12 bits


def write(path, photometric):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"  # CR
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = generate_uid(), generate_uid(), "CR"
    image.PatientName = image.PatientID = image.PatientBirthDate = image.PatientSex = ""
    image.StudyDate = image.StudyTime = image.StudyID = image.AccessionNumber = image.ReferringPhysicianName = ""
    image.SeriesNumber = image.InstanceNumber = 1
    image.Rows, image.Columns = stored.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, photometric
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.ImagerPixelSpacing, image.RescaleSlope, image.RescaleIntercept = [1, 1], 1, -1024
    image.PixelData = stored.tobytes()
    image.save_as(path, enforce_file_format=True)


print(f"Stored: {stored.min()} to {stored.max()}, rescale intercept -1024")
print("Expected: first -1024, last -794, from all of them")
first = {}
for photometric in ("MONOCHROME2", "MONOCHROME1"):
    write("image.dcm", photometric)
    arrays = {f"MONAI, {reader}": LoadImage(reader=reader)("image.dcm") for reader in ("PydicomReader", "ITKReader")}
    arrays["MONAI, no reader named"] = LoadImage()("image.dcm")
    arrays["highdicom, get_frame"] = highdicom.imread("image.dcm").get_frame(1)
    for name, array in arrays.items():
        values = np.asarray(array).reshape(-1)
        first[photometric, name] = float(values[0])
        print(f"Seen, {photometric}, {name}: first {values[0]:.0f}, last {values[-1]:.0f}, shape {tuple(array.shape)}")
seen = list(first.values())
sys.exit(0 if seen[:5] == [-1024] * 5 and seen[5] == seen[6] == 3071 else "The behavior has changed.")
PYTHON
"$python" finding.py

#!/usr/bin/env bash
# MONAI Label writes kidneys into a DICOM SEG as "liver" and "spleen" where the organs before them are not in the
# picture.
#
# Surprise: a label map with the values 3 and 4, stored with the names of all four classes in their order, gets the
#   names of the first two. Every segment is coded as spleen (SCT 78961009), whatever its name.
# Why: names are given by the rank of a value among those that occur, not by the value. Where a client sends no
#   segmentAttribute, one code is written for all.
# Hurt: whoever stores results in a PACS from a network whose organs are not in every image. The wrong names are valid
#   DICOM, are read back as labels, and train the next network.
# Source: monailabel 0.8.5, monailabel.datastore.utils.convert.nifti_to_dicom_seg, which the server calls for output
#   dicom_seg and for every label saved in a PACS; dcmqi 1.5.7 writes what it is told.
# Install: MONAI Label goes in with --no-deps, for its sam2 brings a CUDA toolchain that nothing here needs.
# Pyraseg: its label server stores labels by a writer of its own (number = class, coded by name), and compares them
#   after.
set -euo pipefail

packages=(
    pydicom==2.4.4 pydicom-seg==0.4.1 monai==1.6.1 torch==2.13.0 dcmqi==1.5.7 nibabel==5.4.2 pynrrd==1.1.3
    SimpleITK==2.5.7 itk==5.4.7 pydantic==2.14.4 pydantic-settings==2.16.3 numpy==1.26.4
)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$folder/venv"
    python=$folder/venv/bin/python
    "$python" -m pip install --quiet "${packages[@]}"
    "$python" -m pip install --quiet --no-deps monailabel==0.8.5
fi
cd "$folder"
"$python" - "${packages[@]}" monailabel==0.8.5 <<'PYTHON'
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
import os
import pathlib
import sys
import sysconfig
import warnings

import nibabel
import numpy as np
import pydicom
from monailabel.datastore.utils.convert import nifti_to_dicom_seg
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

warnings.simplefilter("ignore")
os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]  # dcmqi's programs
study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()


def write(path, number):
    """Write one of several CT slices, 3 mm apart."""
    image = Dataset()
    image.is_little_endian, image.is_implicit_VR = True, False
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"  # CT
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame_of_reference
    image.PatientName = image.PatientID = "phantom"
    image.PatientBirthDate = image.PatientSex = image.StudyDate = image.StudyTime = image.StudyID = ""
    image.AccessionNumber = image.ReferringPhysicianName = ""
    image.Modality, image.SeriesNumber, image.InstanceNumber, image.SliceThickness = "CT", 1, number + 1, 3
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 3 * number], [1, 0, 0, 0, 1, 0]
    image.Rows, image.Columns, image.PixelSpacing = 16, 16, [1, 1]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept = 1, 0
    image.PixelData = bytes(2 * 16 * 16)
    image.save_as(path, write_like_original=False)


folder = pathlib.Path("series")
folder.mkdir()
for number in range(6):
    write(folder / f"{number}.dcm", number)
names = ["liver", "spleen", "left kidney", "right kidney"]
label = np.zeros((16, 16, 6), np.uint8)
label[9:13, 9:13, 1:4] = 3
label[2:6, 9:13, 2:5] = 4
nibabel.save(nibabel.Nifti1Image(label, np.diag([-1.0, -1.0, 3.0, 1.0])), "label.nii.gz")

stored = nifti_to_dicom_seg(str(folder), "label.nii.gz", [{"name": name, "description": name} for name in names])
segments = pydicom.dcmread(stored).SegmentSequence
os.unlink(stored)
print("Classes:", dict(enumerate(names, 1)), "and in the label map the values 3 and 4")
print("Expected: segments named left kidney and right kidney")
codes = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in segments]
for segment, code in zip(segments, codes, strict=True):
    print(f"Seen: segment {segment.SegmentNumber} is named {segment.SegmentLabel} and coded {code}")
as_described = [segment.SegmentLabel for segment in segments] == ["liver", "spleen"] and set(codes) == {"78961009"}
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py

#!/usr/bin/env bash
# One NIfTI file lies in two places: nibabel and ITK read different matrices of its header.
#
# Surprise: a file whose sform and qform differ, as the format allows and a registration that updates one of them
#   leaves behind, is 68 mm away in MONAI depending on the reader; no warning from either. Which matrix ITK takes
#   depends on codes that mean "scanner" and "aligned", and turns round with them.
# Why: nibabel takes the sform whenever it is set. ITK 5.4 takes it where its code is 1 (scanner), else the qform if
#   that is set. The standard offers both as "methods" 2 and 3 and leaves the choice to programs.
# Hurt: whoever reads the image by one library and the label by the other: 3D Slicer, SimpleITK and ANTs are ITK, most
#   of Python is nibabel.
# Source: nibabel 5.4.2, itk 5.4.7, MONAI 1.6.1; nifti1.h, "3D image (volume) orientation and location in space".
# Pyraseg: NIfTI images and labels are read by nibabel alone, and a label on another grid is an error.
set -euo pipefail

packages=(monai==1.6.1 nibabel==5.4.2 itk==5.4.7 torch==2.13.0 numpy==2.4.6)
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
import itertools
import sys
import warnings

import nibabel
import numpy as np
from monai.transforms import LoadImage

warnings.simplefilter("ignore")


def matrix(*origin):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = origin
    return affine


print("Expected: all programs agree on where a file lies")
apart = {}
for sform_code, qform_code in itertools.product((1, 2), repeat=2):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), None)
    image.set_sform(matrix(10, 20, 30), sform_code)
    image.set_qform(matrix(-50, 0, 5), qform_code)
    nibabel.save(image, "volume.nii.gz")
    places = {}
    for reader in ("NibabelReader", "ITKReader"):
        places[reader] = LoadImage(reader=reader)("volume.nii.gz").affine[:3, 3].tolist()
    apart[sform_code, qform_code] = float(np.linalg.norm(np.subtract(*places.values())))
    codes = f"sform code {sform_code}, qform code {qform_code}"
    print(f"Seen, {codes}, {apart[sform_code, qform_code]:.0f} mm apart:", places)
as_described = apart[2, 1] > 60 and apart[2, 2] > 60 and apart[1, 1] == apart[1, 2] == 0
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py

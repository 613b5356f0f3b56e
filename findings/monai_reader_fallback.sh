#!/usr/bin/env bash
# MONAI's LoadImage swallows what the reader you name raises, and returns another reader's volume.
#
# Surprise: a reader that refuses a file in read() ("two slices in one place") is not heard. The file comes back
#   loaded, by a reader that knows nothing of the check, and neither an exception nor a warning tells of it.
# Why: LoadImage keeps its default readers behind the named one and tries them in turn; exceptions of read() go to the
#   logger at levels DEBUG and INFO. get_data() alone is called without a guard.
# Hurt: whoever writes a reader in order to be strict, in medicine the very reason for writing one.
# Source: MONAI 1.6.1, monai.transforms.LoadImage.__call__.
# Pyraseg: the read() of its reader only collects paths; every check and all decoding are in get_data().
set -euo pipefail

packages=(monai==1.6.1 torch==2.13.0 nibabel==5.4.2 numpy==2.4.6)
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

import nibabel
import numpy as np
from monai.data import NibabelReader
from monai.transforms import LoadImage


class StrictReader(NibabelReader):
    """Refuses everything, in one of the two methods that a reader has."""

    def __init__(self, refuse_in):
        super().__init__()
        self.refuse_in = refuse_in

    def read(self, data, **kwargs):
        if self.refuse_in == "read":
            raise ValueError("Two slices lie in one place.")
        return super().read(data, **kwargs)

    def get_data(self, img):
        if self.refuse_in == "get_data":
            raise ValueError("Two slices lie in one place.")
        return super().get_data(img)


nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)), "volume.nii.gz")
print("Expected: ValueError from both")
seen = {}
for method in ("read", "get_data"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load = LoadImage(reader=StrictReader(method))
        caught.clear()
        try:
            seen[method] = f"a volume of shape {tuple(load('volume.nii.gz').shape)}"
        except ValueError as error:
            seen[method] = f"ValueError: {error}"
        told = [str(warning.message) for warning in caught if "slices" in str(warning.message)]
    print(f"Seen, refused in {method}(): {seen[method]}; warnings about it: {len(told)}")
as_described = seen["read"].startswith("a volume") and seen["get_data"].startswith("ValueError")
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py

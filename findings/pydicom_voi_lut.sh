#!/usr/bin/env bash
# pydicom's apply_voi wraps around where a VOI lookup table has more than 256 entries of 8 bits.
#
# Surprise: a 12-bit radiograph whose table maps 4096 values to 8 bits, as such tables are made for, becomes noise:
#   the brightest values come out darker than the middle ones. Neither an exception nor a warning.
# Why: the *index* into the table is kept in the type of the table's *values*, uint8, so value 256 looks up entry 0.
# Hurt: whoever shows or converts CR, DX and mammograms, some of which carry such tables; CT mostly has windows.
# Source: pydicom 3.0.2, pydicom.pixels.apply_voi; DICOM PS3.3 C.11.2.1.1, by which the number of entries and the bits
#   of an entry are two numbers that have nothing to do with each other.
# Pyraseg: it applies lookup tables itself ("header" among its windows), with indices of their own type.
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
import sys

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi


def image_with_table(bits):
    """Return a dataset whose table maps 0 to 4095 linearly to 0 to the largest number of so many bits."""
    table = Dataset()
    table.LUTDescriptor = [4096, 0, bits]
    table.add_new("LUTData", "US", (np.arange(4096) * (2**bits - 1) // 4095).tolist())
    image = Dataset()
    image.VOILUTSequence = [table]
    return image


stored = np.array([0, 255, 256, 1000, 2000, 3000, 4095], np.uint16)
seen = {}
for bits in (16, 8):
    seen[bits] = apply_voi(stored, image_with_table(bits))
    print(f"{bits} bits an entry, stored values {stored.tolist()}")
    print("  Expected:", (stored.astype(int) * (2**bits - 1) // 4095).tolist())
    print("  Seen:    ", seen[bits].tolist())
right = np.array_equal(seen[16], stored.astype(int) * 65535 // 4095)
wrong = bool((np.diff(seen[8].astype(int)) < 0).any())
sys.exit(0 if right and wrong else "The behavior has changed.")
PYTHON
"$python" finding.py

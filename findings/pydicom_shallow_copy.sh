#!/usr/bin/env bash
# A shallow copy of a pydicom Dataset is no copy: what is set or deleted in one is set or deleted in the other.
#
# Surprise: Dataset offers the methods of a dictionary, and its copy() says that it returns a shallow copy. A dictionary's
#   shallow copy has keys of its own; after `anonymous = dataset.copy()`, `del anonymous.PatientName` takes the name out
#   of the original as well, and so do copy.copy(dataset) and Dataset(dataset). Only copy.deepcopy keeps them apart.
# Why: all three hand on the same inner dictionary of elements.
# Hurt: whoever makes a second header from a first: a table that links names to pseudonyms is read from a header that
#   has lost its name already, or a derived image changes the UIDs of its source.
# Source: pydicom 3.0.2 (Dataset.copy, Dataset.__init__).
# Pyraseg: copies headers by deepcopy, or makes new ones.
set -euo pipefail

packages=(pydicom==3.0.2)
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
import copy
import sys

from pydicom.dataset import Dataset

WAYS = {"Dataset.copy()": Dataset.copy, "copy.copy": copy.copy, "Dataset(dataset)": Dataset, "copy.deepcopy": copy.deepcopy}
print("Expected: the original keeps Patient ID 1 and its name, as a dictionary would")
seen = {}
for name, way in WAYS.items():
    original = Dataset()
    original.PatientName, original.PatientID = "Example^Person", "1"
    other = way(original)
    other.PatientID = "2"
    del other.PatientName
    seen[name] = original.PatientID, "PatientName" in original
    print(f"Seen, {name}: the original has Patient ID {seen[name][0]} and {'its' if seen[name][1] else 'no'} name")
*shallow, deep = seen.values()
sys.exit(0 if shallow == [("2", False)] * 3 and deep == ("1", True) else "The behavior has changed.")
PYTHON
"$python" finding.py

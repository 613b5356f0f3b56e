#!/usr/bin/env bash
# Pillow shuffles the pixels of a gray TIFF whose orientation lies on its side, if it is opened by its path.
#
# Surprise: a mask or a gray microscopy image saved as an uncompressed TIFF with Orientation 5 to 8 has the stored
#   shape, and pixels in an order that is neither the stored nor the shown picture. Opened as a file object, the same
#   file is turned upright. (That a TIFF is turned while it is read, and a PNG or a JPEG is not, is a surprise of its
#   own: ImageOps.exif_transpose after it turns nothing twice, np.rot90 by the tag does.)
# Why: an uncompressed image of one band and a known path is mapped into memory, with the size that it has when it is
#   shown, so that its rows are cut at the wrong width; then it is turned.
# Hurt: whoever reads masks from TIFFs of a phone or a slide camera. The shape agrees with the image's, nothing is
#   raised.
# Source: Pillow 13.0.0 (ImageFile.load, TiffImagePlugin).
# Pyraseg: photographs and masks are opened as file objects, by one function.
set -euo pipefail

packages=(pillow==13.0.0 numpy==2.4.6)
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
from PIL import Image

stored = np.arange(12, dtype=np.uint8).reshape(3, 4)
# EXIF 2.32, 4.6.4.A, Orientation: which edges of the shown picture the stored first row and first column are.
SHOWN = {
    1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
    5: stored.T, 6: np.rot90(stored, -1), 7: stored[::-1, ::-1].T, 8: np.rot90(stored),
}  # fmt: skip
print("Expected: from a path what comes from a file object, the stored picture or the one that is shown")
wrong = []
for orientation, shown in SHOWN.items():
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(stored).save("image.tif", exif=tags)
    with open("image.tif", "rb") as file:
        assert np.array_equal(np.asarray(Image.open(file)), shown)
    seen = np.asarray(Image.open("image.tif"))
    right = any(np.array_equal(seen, picture) for picture in (stored, shown))
    print(f"Seen, orientation {orientation}, by path: {seen.tolist()}, {'right' if right else 'neither'}")
    wrong += [] if right else [orientation]
sys.exit(0 if wrong == [5, 6, 7, 8] else "The behavior has changed.")
PYTHON
"$python" finding.py

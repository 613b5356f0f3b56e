#!/usr/bin/env bash
# A compressed volume with a damaged bit is read without an error, with other values.
#
# Surprise: gzip and zlib keep a checksum of what they hold, for exactly this case. nibabel does not come to it: four of
#   five single flipped bits of a .nii.gz give an image of the right shape with wrong voxels. `gzip -t`, Python's gzip
#   module and ITK refuse every one of these files. But ITK reads every damaged compressed .mha, and writes no more than
#   "Uncompress failed" to the standard error.
# Why: nibabel reads as many bytes as the header asks for and stops there; the checksum stands behind the last byte, and
#   is compared only by who reads to the end. ITK's MetaImage reader goes on with what was unpacked before the error.
# Hurt: a set of images with one bad copy of a disk or of a download: no error is raised, a training learns from it, an
#   evaluation counts it.
# Source: nibabel 5.4.2 (openers.Opener, arrayproxy); itk 5.4.7 (NiftiImageIO, MetaImageIO).
# Pyraseg: its reader unpacks to the end and compares the checksum; a damaged file is refused by its name.
set -euo pipefail

packages=(nibabel==5.4.2 itk==5.4.7 numpy==2.4.6)
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
import gzip
import sys
from pathlib import Path

import itk
import nibabel as nib
import numpy as np

itk.ProcessObject.SetGlobalWarningDisplay(False)
generator = np.random.default_rng(0)
volume = generator.normal(0, 200, (32, 32, 16)).astype(np.int16)
nib.save(nib.Nifti1Image(volume, np.eye(4)), "whole.nii.gz")
image = itk.image_from_array(np.ascontiguousarray(volume.T))
itk.imwrite(image, "whole.mha", compression=True)

READERS = {
    "Python's gzip, .nii.gz": (".nii.gz", lambda path: np.frombuffer(gzip.decompress(Path(path).read_bytes())[352:], "<i2")),
    "nibabel, .nii.gz": (".nii.gz", lambda path: np.asarray(nib.load(path).dataobj).ravel(order="F")),
    "ITK, .nii.gz": (".nii.gz", lambda path: itk.array_from_image(itk.imread(path)).ravel()),
    "ITK, compressed .mha": (".mha", lambda path: itk.array_from_image(itk.imread(path)).ravel()),
}
FLIPS = 100
truth = volume.ravel(order="F")
for _, (suffix, read) in READERS.items():
    assert np.array_equal(read(f"whole{suffix}"), truth)

print(f"Expected: each of {FLIPS} files with one flipped bit is refused, or read with its true values")
seen = {}
for name, (suffix, read) in READERS.items():
    whole = Path(f"whole{suffix}").read_bytes()
    seen[name] = 0
    # Bits in the middle half of the file, which holds packed voxels: neither header nor checksum.
    for place in np.linspace(len(whole) // 4, len(whole) * 3 // 4, FLIPS).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(place % 8)
        Path(f"damaged{suffix}").write_bytes(damaged)
        try:
            values = read(f"damaged{suffix}")
        except Exception:
            continue
        seen[name] += not np.array_equal(values, truth)
    print(f"Seen, {name}: {seen[name]} of {FLIPS} are read without an error, with wrong values")
strict, *others = seen.values()
sys.exit(0 if strict == others[1] == 0 and others[0] > 50 and others[2] > 50 else "The behavior has changed.")
PYTHON
"$python" finding.py

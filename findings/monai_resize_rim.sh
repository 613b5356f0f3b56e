#!/usr/bin/env bash
# MONAI's Resize(anti_aliasing=True) gives a CT a bright rim: air at its edge becomes as dense as lung.
#
# Surprise: an image that is -1000 HU everywhere, made smaller, holds -804 HU in its corners and -897 HU along its
#   edges.
# Why: before it shrinks, Resize smooths with a Gaussian that pads with zeros, and 0 HU is water. scikit-image, whose
#   default width of the filter MONAI takes over, mirrors the image at its edge.
# Hurt: whoever resizes images in units where 0 is not the background: CT, but also normalized MR and difference
#   images. A threshold or a window makes a frame of it, and a network learns the frame.
# Source: MONAI 1.6.1, monai.transforms.spatial.functional.resize (GaussianSmooth, GaussianFilter).
# Pyraseg: its resize, ResizePhotographd and ResampleSlicesd, is torch's own antialiased filter, renormalized at
#   edges.
set -euo pipefail

packages=(monai==1.6.1 torch==2.13.0 scikit-image==0.26.0 numpy==2.4.6)
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
import torch
from monai.transforms import Resize
from skimage.transform import resize

air = np.full((512, 512), -1000, np.float32)
others = {
    "scikit-image": resize(air, (128, 128), order=1, anti_aliasing=True, preserve_range=True),
    "torch": torch.nn.functional.interpolate(
        torch.from_numpy(air)[None, None], (128, 128), mode="bilinear", antialias=True
    )[0, 0].numpy(),
}
small = Resize((128, 128), mode="bilinear", anti_aliasing=True)(air[None])[0].numpy()
print("Expected: -1000 everywhere, as from others:")
for name, image in others.items():
    print(f"  {name}: {image.min():.0f} to {image.max():.0f}")
print(f"Seen: center {small[64, 64]:.0f}, edge {small[0, 64]:.0f}, corner {small[0, 0]:.0f}")
as_described = small.max() > -850 and all(np.allclose(image, -1000, atol=0.1) for image in others.values())
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py

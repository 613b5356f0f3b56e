#!/usr/bin/env bash
# ONNX's antialiased Resize differs from PyTorch's and Pillow's by up to 18 of 255 grays, unless a third attribute is
# set.
#
# Surprise: mode "linear", antialias=1 and "half_pixel" are the filter of both libraries, and agree with them to float
#   precision; only the first and the last line along an axis that shrinks do not.
# Why: exclude_outside is 0 by default: weights that fall outside of the image go to its edge pixel. PyTorch and
#   Pillow drop them and normalize the others, which is exclude_outside=1. ONNX Runtime does what the standard says.
# Hurt: whoever builds a preprocessing graph by hand and finds that predictions differ a little at the border. It
#   looks like a fault of the runtime, which it is not; PyTorch's own exporter sets the attribute.
# Source: ONNX 1.23.2, operator Resize (opset 18); onnxruntime 1.31.1.
# Pyraseg: its graph of the whole path shrinks by two matrix products with torch's weights instead.
set -euo pipefail

packages=(onnx==1.23.2 onnxruntime==1.31.1 torch==2.13.0 pillow==13.0.0 numpy==2.4.6)
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
import onnxruntime
import torch
from onnx import TensorProto, checker, helper
from PIL import Image

SIZE, TARGET = (300, 500), (300, 200)


def resize(image, **attributes):
    """Resize by an ONNX graph of a single node."""
    node = helper.make_node(
        "Resize", ["image", "", "", "size"], ["small"], mode="linear", antialias=1,
        coordinate_transformation_mode="half_pixel", **attributes,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, *SIZE])],
        [helper.make_tensor_value_info("small", TensorProto.FLOAT, [1, 1, *TARGET])],
        [helper.make_tensor("size", TensorProto.INT64, [4], [1, 1, *TARGET])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": image})[0][0, 0]


noise = 255 * np.random.default_rng(0).random((1, 1, *SIZE), np.float32)
torchs = torch.nn.functional.interpolate(torch.from_numpy(noise), TARGET, mode="bilinear", antialias=True)[0, 0].numpy()
pillows = np.asarray(Image.fromarray(noise[0, 0]).resize(TARGET[::-1], Image.Resampling.BILINEAR))
print(f"Pillow from torch: {np.abs(pillows - torchs).max():.1e} grays")
print("Expected: the same of ONNX Runtime")
default = np.abs(resize(noise) - torchs)
excluding = np.abs(resize(noise, exclude_outside=1) - torchs)
columns = np.flatnonzero(default.max(0) > 0.01).tolist()
print(f"Seen: {default.max():.1f} grays, in the columns {columns} of {TARGET[1]}")
print(f"Seen, exclude_outside=1: {excluding.max():.1e} grays")
as_described = default.max() > 5 and excluding.max() < 0.01 and columns == [0, TARGET[1] - 1]
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py

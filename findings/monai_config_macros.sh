#!/usr/bin/env bash
# A `%file#key` macro of a MONAI config means another file in another folder, and stays unresolved in an exported
# model.
#
# Surprise: a bundle's config that takes the number of classes from its neighbor "%configs/common.json#classes" gives
#   3 where it was tried. Run from another bundle's folder, the same file gives the other bundle's number, without a
#   word. And ckpt_export packs the macro into the TorchScript file, which is made to be all that a user needs.
# Why: the path is opened as it stands, so it is relative to the working directory and not to the config or the
#   bundle; ckpt_export saves the config as it was read and not as it was resolved.
# Hurt: whoever splits configs so that training and inference share settings, and then deploys from elsewhere.
# Source: MONAI 1.6.1, monai.bundle.ConfigParser._do_resolve and monai.bundle.ckpt_export.
# Pyraseg: its configs hold no macro. What two configs must agree on stands in both, and a test compares them.
set -euo pipefail

packages=(monai==1.6.1 pytorch-ignite==0.5.5 fire==0.7.1 torch==2.13.0 numpy==2.4.6)
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
import json
import logging
import os
import pathlib
import sys

import torch
from monai.bundle import ConfigParser, ckpt_export

for name, classes in {"liver": 3, "lung": 7}.items():
    folder = pathlib.Path(name, "configs")
    folder.mkdir(parents=True)
    config = {
        "classes": "%configs/common.json#classes",
        "network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": "@classes", "kernel_size": 1},
    }
    (folder / "common.json").write_text(json.dumps({"classes": classes}))
    (folder / "inference.json").write_text(json.dumps(config))
    (folder / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))

home = pathlib.Path.cwd()
inference = home / "liver" / "configs" / "inference.json"
print("Expected: the config of the liver bundle has 3 classes, wherever it is run")
seen = {}
for place in ("liver", "lung", "."):
    os.chdir(home / place)
    parser = ConfigParser()
    parser.read_config(inference)
    try:
        seen[place] = parser.get_parsed_content("classes")
    except FileNotFoundError as error:
        seen[place] = f"FileNotFoundError: {error.filename}"
    print(f"Seen, run in {place}: {seen[place]}")

logging.disable(logging.INFO)
os.chdir(home / "liver")
torch.save(torch.nn.Conv2d(1, 3, 1).state_dict(), "model.pt")
files = {"config_file": str(inference), "meta_file": "configs/metadata.json", "ckpt_file": "model.pt"}
ckpt_export("network_def", filepath="model.ts", input_shape=[1, 1, 8, 8], **files)
embedded = {"inference.json": ""}
torch.jit.load("model.ts", _extra_files=embedded)
exported = json.loads(embedded["inference.json"])["classes"]
print("Expected: the exported model carries 3")
print("Seen:", exported)
as_described = seen["liver"] == 3 and seen["lung"] == 7 and exported.startswith("%")
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py

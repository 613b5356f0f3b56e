#!/usr/bin/env bash
# A bundle's config that MONAI exports as YAML has its mappings in the order of the alphabet, not in that of the config.
#
# Surprise: ConfigParser.export_config_file(fmt="yaml") and the same config as JSON build different components where an
#   order counts: of {"t1": ..., "flair": ...} the channels change places, and of a postprocessing or of a label table
#   that is a mapping so do the steps and the classes. Nothing is logged. JSON keeps the order.
# Why: the mapping is written by yaml.safe_dump, which sorts keys unless it is told not to; what is read again is in the
#   order of the file.
# Hurt: a network of several MR sequences that was trained from JSON and is deployed from the exported YAML sees FLAIR
#   where it learned T1: a plausible mask, and a wrong one.
# Source: monai 1.6.1, monai/bundle/config_parser.py, ConfigParser.export_config_file; PyYAML 6.0.3, safe_dump.
# Pyraseg: the order of sequences and of regions travels with the weights and is compared; a list of pairs keeps it.
set -euo pipefail

packages=(monai==1.6.1 torch==2.13.0 numpy==2.4.6 PyYAML==6.0.3)
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

import torch
from monai.bundle import ConfigParser

study = {"t1": torch.full((1, 2, 2), 1.0), "flair": torch.full((1, 2, 2), 2.0)}
config = {
    "imports": ["$import torch"],
    "sequences": {"t1": "T1*MPR*", "flair": "*FLAIR*"},
    "stack": "$lambda study: torch.cat([study[name] for name in @sequences])",
}
channels = {}
for form in ("json", "yaml"):
    ConfigParser.export_config_file(config, f"config.{form}", fmt=form)
    parser = ConfigParser(ConfigParser.load_config_file(f"config.{form}"))
    channels[form] = parser.get_parsed_content("stack")(study)[:, 0, 0].tolist()
print("Expected: the same channels from both files: T1 (1) first, then FLAIR (2)")
print("Seen:", channels)
if channels != {"json": [1.0, 2.0], "yaml": [2.0, 1.0]}:
    sys.exit("This has changed.")
PYTHON
"$python" finding.py

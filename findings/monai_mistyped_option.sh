#!/usr/bin/env bash
# monai.bundle run takes a mistyped option, does nothing with it, and ends with success.
#
# Surprise: `--max_epoch 3`, where the config says max_epochs, trains the 10 epochs of the config. Neither an error
#   nor a warning names the unknown option.
# Why: every option becomes an entry of the config, a new one if there is none of the name, and an entry to which
#   nothing refers is never looked at. The same holds for a typing error in an overlay file.
# Hurt: whoever starts a night's training with one letter too few, or believes a sweep that varied nothing.
# Source: MONAI 1.6.1, monai.bundle.run and ConfigParser.
# Pyraseg: an option that no config has stops the run, and the message offers the nearest name.
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
import pathlib
import subprocess
import sys

config = {
    "max_epochs": 10,
    "trainer": {"_target_": "builtins.dict", "epochs": "@max_epochs"},
    "run": ["$print('this run trains', @trainer['epochs'], 'epochs')"],
}
folder = pathlib.Path("configs")
folder.mkdir()
(folder / "train.json").write_text(json.dumps(config))
(folder / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
print("Expected: the second command is refused, or warned of")
seen = {}
for option in ("--max_epochs", "--max_epoch"):
    command = [sys.executable, "-m", "monai.bundle", "run", "run", "--config_file", "configs/train.json", option, "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    output = done.stdout + done.stderr
    (line,) = (line for line in output.splitlines() if line.startswith("this run trains"))
    complaints = [line for line in output.splitlines() if option[2:] in line and f"> {option[2:]}: 3" not in line]
    seen[option] = line, done.returncode, complaints
    print(f"Seen, {option} 3: {line}; exit code {done.returncode}; complaints: {complaints or 'none'}")
taken, ignored = seen.values()
as_described = "3 epochs" in taken[0] and "10 epochs" in ignored[0] and ignored[1:] == (0, [])
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py

#!/usr/bin/env bash
# torch.save onto a full disk does not say that the disk is full.
#
# Surprise: RuntimeError "unexpected pos 704 vs 598", which names a damaged file to most who read it. The errno is
#   gone: neither the exception nor its cause is an OSError, so no handler for a full disk catches it.
# Why: given a path, PyTorch writes by a C++ stream and finds out by the position that it does not reach. Given an
#   open Python file, the same call raises OSError "No space left on device".
# Hurt: whoever looks for a corrupt checkpoint, or a bug, at three in the morning; and programs that retry or give up
#   by errno. The half-written file stays behind.
# Source: PyTorch 2.13.0, torch.save and caffe2/serialize/inline_container.cc.
# Pyraseg: a failed write asks the disk itself for its free space, and says that it is full.
set -euo pipefail

packages=(torch==2.13.0 numpy==2.4.6)
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
import errno
import sys

import torch


def outcome(save):
    """Return what is raised; /dev/full is the kernel's full disk."""
    try:
        save()
    except Exception as error:
        return error
    return None


def through_a_file():
    with open("/dev/full", "wb") as file:
        torch.save(weights, file)


weights = {"weight": torch.zeros(1 << 20)}
by_path = outcome(lambda: torch.save(weights, "/dev/full"))
by_file = outcome(through_a_file)
print("Expected: OSError, No space left on device, both times")
for name, error in {"torch.save(weights, path)": by_path, "torch.save(weights, file)": by_file}.items():
    print(f"Seen, {name}: {type(error).__name__}: {str(error).splitlines()[0]}")
chain, found = by_path, []
while chain is not None:
    found.append(getattr(chain, "errno", None))
    chain = chain.__cause__ or chain.__context__
hidden = "unexpected pos" in str(by_path) and errno.ENOSPC not in found
told = isinstance(by_file, OSError) and by_file.errno == errno.ENOSPC
sys.exit(0 if hidden and told else "The behavior has changed.")
PYTHON
"$python" finding.py

# SPDX-License-Identifier: Apache-2.0
"""The package that these tests share, and one that leaves a mark where it runs."""

import json
from pathlib import Path

import pytest

from tests.helpers.packages import Files, Package
from tests.helpers.packages import package as package


@pytest.fixture
def trap(package: Package, tmp_path: Path) -> tuple[Files, Path]:
    """Return a package whose code and whose configs leave a mark when they run, and the path of the mark."""
    mark = tmp_path / "it_ran"
    files = dict(package.files)
    code = f"open({str(mark)!r}, 'w').close()"
    files["bundle/pyraseg/__init__.py"] += code.encode()
    for name in ("train", "inference", "evaluate"):
        config = json.loads(files[f"configs/{name}.json"])
        config["bundle_root"] = config["network_def"]["encoder"] = f"$({code}, 'tf_efficientnet_lite2')[1]"
        files[f"configs/{name}.json"] = json.dumps(config).encode()
    return files, mark

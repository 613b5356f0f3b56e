# SPDX-License-Identifier: Apache-2.0
"""A package as the folder `models/NAME` of a clone of MONAI's model zoo.

The zoo's rules are in its CONTRIBUTING.md (https://github.com/Project-MONAI/model-zoo) and in the programs of its
`ci/`: no weights in git, but addresses and sums of them in `large_files.yml`; a version that is in the changelog and
was not used before. Its formatters change code, so the sums of the package, and their signature, stay behind.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.packaging import METADATA, SIGNATURE, SUMS, Verified, unpack

LARGE_FILES = "large_files.yml"
#: Of a file in git, in bytes: the zoo's check-added-large-files stops at 1024 kB (its guide allows 25 MB).
LARGEST = 2**20


def zoo_files(files: Mapping[str, bytes], url: str) -> dict[str, bytes]:
    """Return what goes into the zoo's git, by path: a package but for its sums and large files, and where those are.

    Files of `models/` are large whatever their size: the zoo's git ignores them.

    Args:
        files: of the package.
        url: of a public folder that has them under their paths, such as `https://huggingface.co/OWNER/NAME/resolve/1.2.3`.

    Raises:
        PyrasegError: the address is not one of HTTP.
    """
    if not url.startswith(("https://", "http://")):
        raise PyrasegError(f"{url!r} is no address that the zoo can download from. Give one that starts with https://.")
    large = {path for path, content in files.items() if path.startswith("models/") or len(content) > LARGEST}
    entries = [
        {
            "path": path,
            "url": f"{url.rstrip('/')}/{path}",
            "hash_val": hashlib.sha256(files[path]).hexdigest(),
            "hash_type": "sha256",
        }
        for path in sorted(large)
    ]
    kept = {path: content for path, content in files.items() if path not in (*large, SUMS, SIGNATURE)}
    return kept | {LARGE_FILES: yaml.safe_dump({"large_files": entries}, sort_keys=False, width=1000).encode()}


def write_zoo(package: Verified, clone: Path, url: str) -> Path:
    """Write a package into a clone of the zoo, whole or not at all; return its folder there.

    Args:
        package: that was verified.
        clone: of the zoo; an earlier version of the package in it is replaced.
        url: where the large files are, see `zoo_files`.

    Raises:
        PyrasegError: the folder is no clone of the zoo, the zoo has this version, or another thing has its name.
    """
    files = zoo_files(package.files, url)
    models = clone / "models"
    target = models / package.name
    if not (models / "model_info.json").is_file():
        raise PyrasegError(f"{clone} is no clone of MONAI's model zoo: it has no models/model_info.json.")
    version = package.metadata["version"]
    if f"{package.name}_v{version}" in json.loads((models / "model_info.json").read_text(encoding="utf-8")):
        raise PyrasegError(
            f"The zoo has {package.title} already, and takes a version once. Raise the version in "
            "configs/metadata.json and pyproject.toml, add it to the changelog, and package again."
        )
    if target.exists() and not (target / METADATA).is_file():
        raise PyrasegError(f"{target} exists already and is not a bundle. Move it away.")
    with replacing(target) as temporary:
        unpack(files, temporary)
        if target.exists():
            shutil.rmtree(target)
    return target

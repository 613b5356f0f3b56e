# SPDX-License-Identifier: Apache-2.0
"""What the files of a package must say, read as plain JSON: no config is parsed, no file of it is run."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bundle.pyraseg.core import PyrasegError

BILL, METADATA, MODEL = "bom.cdx.json", "configs/metadata.json", "models/model.pt"
CHANGELOG = "docs/changelog.md"
GOLDEN = "golden/expected.npz"
CONFIGS = ("configs/train.json", "configs/evaluate.json", "configs/inference.json")
REQUIRED = (
    *CONFIGS, METADATA, "configs/logging.conf", MODEL, "bundle/pyraseg/__init__.py", GOLDEN, BILL,
    "docs/README.md", "docs/data_license.txt", CHANGELOG, "README.md", "LICENSE", "pyproject.toml", "constraints.txt",
)  # fmt: skip
#: Required by MONAI's schema of metadata (meta_schema_20240725), with their types.
_METADATA = {
    "schema": str, "version": str, "monai_version": str, "pytorch_version": str, "numpy_version": str, "task": str,
    "description": str, "authors": str, "copyright": str, "required_packages_version": dict,
    "network_data_format": dict,
}  # fmt: skip
_TENSOR = {
    "type": str, "format": str, "num_channels": int, "spatial_shape": list, "dtype": str, "value_range": list,
}  # fmt: skip


class Verified(NamedTuple):
    """A package that was verified: its name, its metadata and its files, by path in it."""

    name: str
    metadata: dict[str, Any]
    files: dict[str, bytes]

    @property
    def title(self) -> str:
        return f"{self.name} {self.metadata['version']}"


def check_form(name: str | None, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Check that a package has its files, that they agree with each other, and that its metadata are valid.

    Args:
        name: of the package's folder; None where whoever fetched it chose the name.
        files: by path in it.

    Returns:
        The metadata.

    Raises:
        PyrasegError: something is missing, is no JSON, or contradicts something else.
    """
    for path in REQUIRED:
        if path not in files:
            raise PyrasegError(f"{path} is missing")
    parsed = {path: _json(path, content) for path, content in files.items() if path.endswith(".json")}
    for path in CONFIGS:
        if "run" not in parsed[path] or "network_def" not in parsed[path]:
            raise PyrasegError(f"{path} has no `run` or no `network_def`, so it does not stand alone")
    metadata = parsed[METADATA]
    _check_metadata(metadata)
    digest = hashlib.sha256(files[MODEL]).hexdigest()
    if metadata.get("weights") != {MODEL: digest}:
        raise PyrasegError(f"the `weights` of {METADATA} are not the SHA-256 of {MODEL}")
    own = _section(_section(parsed[BILL], "metadata"), "component")
    if name is None:
        name = str(own.get("name"))
        if re.fullmatch(r"\w+", name, re.ASCII) is None:
            raise PyrasegError(f"{BILL} gives it the name {name!r}, which no package has")
    if parsed[BILL].get("bomFormat") != "CycloneDX" or (own.get("name"), own.get("version")) != (
        name,
        metadata["version"],
    ):
        raise PyrasegError(f"{BILL} is no CycloneDX bill of {name} {metadata['version']}")
    return metadata


def _check_metadata(metadata: dict[str, Any]) -> None:
    """Check metadata as MONAI's schema does, and what MONAI Label needs beside it."""
    _check_keys("", metadata, _METADATA)
    if re.fullmatch(r"\d+\.\d+\.\d+", metadata["version"]) is None:
        raise PyrasegError(f"{METADATA} has the version {metadata['version']!r}, which is not of the form 1.2.3")
    if not isinstance(_section(metadata, "changelog").get(metadata["version"]), str):
        raise PyrasegError(f"{METADATA} has no entry of {metadata['version']} in its changelog")
    formats = metadata["network_data_format"]
    for side, key in (("inputs", "image"), ("outputs", "pred")):
        tensor = _section(_section(formats, side), key)
        _check_keys(f"network_data_format#{side}#{key}#", tensor, _TENSOR)
        if len(_section(tensor, "channel_def")) != tensor["num_channels"]:
            raise PyrasegError(f"{METADATA} names other than {tensor['num_channels']} channels of {key!r}")


def _check_keys(place: str, content: dict[str, Any], kinds: Mapping[str, type]) -> None:
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise PyrasegError(f"{METADATA} has no {place}{key} of type {kind.__name__}")


def _section(content: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an object within an object; an empty one where there is none."""
    section = content.get(key)
    return section if isinstance(section, dict) else {}


def _json(path: str, content: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key stands in it twice")
        return dict(pairs)

    try:
        parsed = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise PyrasegError(f"{path} is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise PyrasegError(f"{path} is no JSON object")
    return parsed

# SPDX-License-Identifier: Apache-2.0
"""The software bill of materials: what a package needs, in the versions it was tested with.

CycloneDX 1.6 (ECMA-424, https://cyclonedx.org/docs/1.6/json/), with packages named by purl
(https://github.com/package-url/purl-spec). It has neither a time nor a random serial number: the same package, the
same bytes.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from bundle.pyraseg.errors import PyrasegError


def bill_of_materials(root: Path, *, name: str, version: str, model: str, digest: str) -> dict[str, Any]:
    """Return the bill of a package.

    Args:
        root: of the repository, whose pyproject.toml declares dependencies that its constraints.txt pins.
        name: of the package.
        version: of the package.
        model: path of the weights in the package.
        digest: SHA-256 of the weights.

    Raises:
        PyrasegError: a declared dependency has no pin.
    """
    declared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    pins = _pins(root / "constraints.txt")
    own = f"pkg:generic/{name}@{version}"
    libraries = []
    for project in sorted(_normalised(requirement) for requirement in declared):
        if project not in pins:
            raise PyrasegError(
                f"{root / 'constraints.txt'} pins no version of {project}, which pyproject.toml asks for."
            )
        purl = f"pkg:pypi/{project}@{pins[project]}"
        libraries.append({"type": "library", "bom-ref": purl, "name": project, "version": pins[project], "purl": purl})
    weights = {
        "type": "machine-learning-model",
        "bom-ref": f"{own}#{model}",
        "name": model,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": name,
                "version": version,
                "purl": own,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [weights, *libraries],
        "dependencies": [{"ref": own, "dependsOn": [component["bom-ref"] for component in (weights, *libraries)]}],
    }


def _pins(path: Path) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return {_normalised(line): line.partition("==")[2].strip() for line in lines if "==" in line}


def _normalised(requirement: str) -> str:
    """Return the project's name in a requirement, in the form of purl and PEP 503."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    if name is None:
        raise PyrasegError(f"{requirement!r} in pyproject.toml names no package.")
    return re.sub(r"[-_.]+", "-", name[0]).lower()

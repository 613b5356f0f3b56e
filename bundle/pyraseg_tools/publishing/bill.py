# SPDX-License-Identifier: Apache-2.0
"""The software bill of materials: what a package needs, and what that needs, in the versions it was tested with.

CycloneDX 1.6 (ECMA-424, https://cyclonedx.org/docs/1.6/json/), with packages named by purl
(https://github.com/package-url/purl-spec). It has neither a time nor a random serial number: the same package made in
the same environment, the same bytes.
"""

import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bundle.pyraseg.core import PyrasegError

#: Extras that a package needs for all that it can do, its training among it.
EXTRAS = ("train", "nrrd")


def bill_of_materials(root: Path, *, name: str, version: str, model: str, digest: str, license: str) -> dict[str, Any]:
    """Return the bill of a package.

    Args:
        root: of the repository, whose pyproject.toml declares dependencies that its constraints.txt pins.
        name: of the package.
        version: of the package.
        model: path of the weights in the package.
        digest: SHA-256 of the weights.
        license: of the weights, an identifier of SPDX.

    Raises:
        PyrasegError: a declared dependency has no pin, or a package is not installed that another one needs.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = project["dependencies"] + [text for extra in EXTRAS for text in project["optional-dependencies"][extra]]
    declared = [Requirement(text) for text in texts]
    pins = _pins(root / "constraints.txt")
    for requirement in declared:
        if canonicalize_name(requirement.name) not in pins:
            raise PyrasegError(
                f"{root / 'constraints.txt'} pins no version of {requirement.name}, which pyproject.toml asks for."
            )
    needed = dependencies(declared)
    own = f"pkg:generic/{name}@{version}"
    purls = {library: f"pkg:pypi/{library}@{pins.get(library) or _installed(library).version}" for library in needed}
    libraries = [
        {"type": "library", "bom-ref": purl, "name": library, "version": purl.partition("@")[2], "purl": purl}
        for library, purl in purls.items()
    ]
    weights = {
        "type": "machine-learning-model",
        "bom-ref": f"{own}#{model}",
        "name": model,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": [{"license": {"id": license}}],
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
        "dependencies": [
            {
                "ref": own,
                "dependsOn": [weights["bom-ref"], *sorted(purls[canonicalize_name(line.name)] for line in declared)],
            },
            {"ref": weights["bom-ref"]},
            *({"ref": purls[library], "dependsOn": [purls[other] for other in needed[library]]} for library in needed),
        ],
    }


def dependencies(requirements: Iterable[Requirement]) -> dict[str, list[str]]:
    """Return the packages that requirements lead to, by name, each with the names of those that it needs itself.

    What a package needs is read from its installed metadata, for this platform (a build of PyTorch for GPUs leads to
    packages of NVIDIA), with the extras by which it is asked for. Names and lists are sorted.

    Raises:
        PyrasegError: one of them is not installed.
    """
    extras: dict[str, set[str]] = {}
    found: dict[str, set[str]] = {}
    left = list(requirements)
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        wanted = extras.get(name, set()) | {"", *requirement.extras}  # "": what it needs without an extra
        if extras.get(name) == wanted:
            continue
        extras[name] = wanted
        lines = [Requirement(text) for text in _installed(name).requires or []]
        own = [
            line
            for line in lines
            if line.marker is None or any(line.marker.evaluate({"extra": extra}) for extra in wanted)
        ]
        found[name] = {canonicalize_name(line.name) for line in own}
        left += own
    return {name: sorted(found[name]) for name in sorted(found)}


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise PyrasegError(
            f"{name} is not installed, so what it needs cannot be listed: pip install -c constraints.txt -e ."
        ) from error


def _pins(path: Path) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line}

# SPDX-License-Identifier: Apache-2.0
"""Pack the runtime into one file that Python runs, with the modules that it needs and no others."""

import ast
import stat
import zipfile
from collections.abc import Mapping
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

import bundle.pyraseg
from bundle.pyraseg.core import replacing

PACKAGE = "bundle.pyraseg"
START = f"{PACKAGE}.runtime.__main__"
ROOT = Path(bundle.pyraseg.__file__).parents[2]
#: The extra that lists what the runtime needs.
EXTRA = "runtime"
MAIN = f"""\
import sys
if sys.version_info < (3, 11):
    sys.exit("pyraseg: this needs Python 3.11 or later, and this is " + sys.version.split()[0] + ".")
from {START} import main
sys.exit(main())
"""
#: Time of every entry, so that the same sources give the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)


def modules() -> dict[str, Path]:
    """Return the modules of this package that the runtime imports, itself and indirectly, also inside functions."""
    found: dict[str, Path] = {}
    left = [START]
    while left:
        name = left.pop()
        path = _source(name)
        if path is None or name in found:
            continue
        found[name] = path
        left += [name.rpartition(".")[0], *imports(path)]
    return found


def public_names(room: str) -> dict[str, str]:
    """Return the module of each public name of a room, from its `__init__.pyi`."""
    stub = ROOT.joinpath(*room.split("."), "__init__.pyi")
    if not stub.is_file():
        return {}
    nodes = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in nodes for alias in node.names}


def imports(path: Path) -> list[str]:
    """Return the modules that a module may import; of `from room import Name` also the one that has the name."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            public = public_names(node.module)
            parts = [public.get(alias.name, alias.name) for alias in node.names]
            names += [node.module, *(f"{node.module}.{part}" for part in parts)]
    return names


def requirements() -> list[str]:
    """Return what is to be installed beside the file, as pip reads it: the extra of the installed package."""
    lines = [Requirement(text) for text in requires("pyraseg") or []]
    extra = [line for line in lines if line.marker is not None and line.marker.evaluate({"extra": EXTRA})]
    return [f"{line.name}{line.specifier}" for line in extra]


def write_zipapp(path: Path) -> int:
    """Write the runtime as one executable file; return how many modules are in it."""
    included = modules()
    inside = {
        source.relative_to(ROOT).as_posix(): _content(name, source, included) for name, source in included.items()
    }
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.write(b"#!/usr/bin/env python3\n")
            with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
                # Python 3.11 and 3.12 find a package without __init__ in a zip by the entry of its folder alone.
                archive.writestr(zipfile.ZipInfo("bundle/", EPOCH), b"")
                entries = {"__main__.py": MAIN.encode(), "LICENSE": (ROOT / "LICENSE").read_bytes(), **inside}
                for name, content in sorted(entries.items()):
                    info = zipfile.ZipInfo(name, EPOCH)
                    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                    archive.writestr(info, content)
        temporary.chmod(temporary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return len(inside)


def _content(name: str, source: Path, included: Mapping[str, Path]) -> bytes:
    """Return what the file has for a module; a room offers those of its names whose modules are in the file."""
    if source.name != "__init__.py":
        return source.read_bytes()
    offered: dict[str, list[str]] = {}
    for public, module in public_names(name).items():
        if f"{name}.{module}" in included:
            offered.setdefault(module, []).append(public)
    if not offered:
        return b""
    attach = f"lazy_loader.attach(__name__, submod_attrs={offered})"
    return f"import lazy_loader\n__getattr__, __dir__, __all__ = {attach}\n".encode()


def _source(name: str) -> Path | None:
    """Return the file of a module of this package, or None for anything else."""
    if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
        return None
    place = ROOT.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)

# SPDX-License-Identifier: Apache-2.0
"""The names that a room offers: all there, none hidden by a module, and nothing heavy on the way to something light."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import bundle.pyraseg
from tests.helpers.commands import ROOT

STUBS = sorted((ROOT / "bundle").rglob("__init__.pyi"))
#: Rooms that work, as a whole, where neither PyTorch nor MONAI is installed.
LIGHT = ("dicom", "labels", "runtime", "packaging")


def room(stub: Path) -> str:
    return ".".join(stub.parent.relative_to(ROOT).parts)


@pytest.mark.parametrize("stub", STUBS, ids=room)
def test_every_public_name_is_there_and_no_module_hides_it(stub):
    imports = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    listed = [alias.name for node in imports for alias in node.names]
    found = importlib.import_module(room(stub))
    assert listed and sorted(found.__all__) == sorted(listed) and len(set(listed)) == len(listed)
    modules = {path.stem for path in stub.parent.iterdir()}
    assert not modules & set(listed)
    for node in imports:
        module = importlib.import_module(f"{found.__name__}.{node.module}")
        for alias in node.names:
            assert getattr(found, alias.name) is getattr(module, alias.name)


def test_every_room_has_names():
    rooms = [path for path in Path(bundle.pyraseg.__file__).parent.iterdir() if path.is_dir() and path.name[0] != "_"]
    assert {path / "__init__.pyi" for path in rooms} <= set(STUBS)


@pytest.mark.parametrize("name", LIGHT)
def test_light_rooms_import_neither_torch_nor_monai(name):
    code = f"""
import sys
sys.modules.update(dict.fromkeys(("torch", "monai", "ignite", "matplotlib")))
import bundle.pyraseg.{name} as room
print(len([getattr(room, name) for name in room.__all__]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


def test_rooms_are_entered_by_their_doors():
    """Code outside a room imports the room's public names, not its modules, so that files may move within it."""
    graph = grimp.build_graph("bundle.pyraseg", "bundle.pyraseg_tools", "scripts", "benchmarks", cache_dir=None)
    rooms = sorted(map(room, STUBS), key=len, reverse=True)
    through_walls = []
    for imported in sorted(graph.modules - set(rooms)):
        home = next((name for name in rooms if imported.startswith(f"{name}.")), None)
        if home:
            importers = graph.find_modules_that_directly_import(imported) - {home}
            through_walls += [f"{each} -> {imported}" for each in importers if not each.startswith(f"{home}.")]
    assert through_walls == []

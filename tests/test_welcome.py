# SPDX-License-Identifier: Apache-2.0
"""What greets whoever comes next is true of the code: the drawing, the walks, the change log, the citation."""

import json
import re

import yaml

from scripts import draw_architecture, write_changelog
from tests.helpers.commands import ROOT


def test_the_drawing_is_that_of_the_code():
    assert draw_architecture.PICTURE.read_text() == draw_architecture.drawing(), draw_architecture.__doc__


def test_every_place_of_the_walks_is_there():
    """In a cell `room/module.py`: `Name`, `Name`; the names stand in the module, or in the room that is named last."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    places = re.findall(r"`((?:pyraseg_tools/)?[a-z_]+/(?:[a-z_]+/)*(?:[a-z_]+\.py)?)`((?:[:,] `[A-Z_a-z.]+`)*)", text)
    assert len(places) > 40
    for path, names in places:
        tops = (ROOT / "bundle" / "pyraseg", ROOT / "bundle", ROOT)
        home = next((top / path for top in tops if (top / path).exists()), None)
        assert home is not None, path
        files = [home] if home.is_file() else list(home.rglob("*.py"))
        content = "\n".join(file.read_text() for file in files)
        for name in re.findall(r"`([A-Z_a-z.]+)`", names):
            if not name.endswith(".py"):
                *_, last = name.split(".")
                assert re.search(rf"^ *(def|class) {last}\b", content, re.MULTILINE), (path, name)


def test_the_change_log_is_that_of_the_metadata():
    assert write_changelog.FILE.read_text() == write_changelog.text(), write_changelog.__doc__


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == json.loads((ROOT / "configs" / "metadata.json").read_text())["version"]

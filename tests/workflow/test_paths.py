# SPDX-License-Identifier: Apache-2.0
"""A path of the command line reaches a program as it was written, or is refused, whatever Fire and MONAI make of it."""

import json
from pathlib import Path

import pytest
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.workflow.config import parse_options, read_config, require_as_typed, verbatim
from bundle.pyraseg.workflow.knobs import wrong_values

NAMES = [
    "plain", "a b", "123", "0123", "1e5", "1_0", "0x10", "-1.5", "None", "True", "null", "[a]", "{a}", "(a)", "a,b",
    "'a'", '"a"', "a'b", "in#1", "a #b", "#", "a::b", "a@b", "a@#b", "a@::b", "50%", "50%#x", "50%::x", "@a", "$a",
    "%a", "$1", "a$b", "~a", "a\\b", "a\\x41", "1.2.840.113619.9", "caf\N{LATIN SMALL LETTER E WITH ACUTE}#",
    "\N{CJK UNIFIED IDEOGRAPH-4E00}#", "a\nb#",
]  # fmt: skip
#: Those that Fire and MONAI leave as they are.
HARMLESS = {
    "plain", "a b", "0123", "null", "a'b", "a::b", "a@b", "50%", "a$b", "~a", "a\\b", "a\\x41", "1.2.840.113619.9",
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Hold a config that uses a path, in a folder that MONAI's parser would rename."""
    file = tmp_path / "a#b" / "configs" / "base.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"dataset_dir": ".", "run": ["@dataset_dir", "$@dataset_dir + '/x'"]}))
    return file


@pytest.mark.parametrize("there", [True, False], ids=["there", "new"])
@pytest.mark.parametrize("name", NAMES)
def test_a_program_of_ours_takes_every_path(config, tmp_path, monkeypatch, name, there):
    monkeypatch.chdir(tmp_path)
    for text in (name, f"./{name}", str(tmp_path / name)):
        if there:
            Path(text).mkdir(exist_ok=True)
        if not there and text == name and (name[0] in "'\"@$%" or name in ("None", "null")):
            continue  # where nothing is of that name, a sign, quotes and None have the meaning that they have for MONAI
        parser = read_config([config], parse_options(["--dataset_dir", text]))
        assert parser.get_parsed_content("run#1") == f"{text}/x"
        assert parser.get_parsed_content("run#0") == text
        assert parser.get_parsed_content("bundle_root") == str(config.parents[1])


@pytest.mark.parametrize("name", NAMES)
def test_python_m_monai_bundle_run_takes_a_path_as_it_is_or_refuses_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    for text in (name, f"./{name}", str(tmp_path / name)):
        content = {"dataset_dir": DefaultParseValue(text), "run": "@dataset_dir"}
        try:
            require_as_typed(["run", "training", "--epochs", "3", "--dataset_dir", text])
            require_as_typed(["run", "training", f"--dataset_dir={text}", "--epochs", "3"])
            refused = [line for line in wrong_values(content, {"dataset_dir"}) if "dataset_dir" in line]
        except PyrasegError as error:
            refused = [str(error)]
        if text == "%a":  # which MONAI reads before any program: a macro that is not there
            assert not refused
            continue
        if refused:
            assert text in refused[0]
            # a folder before it takes the meaning from every name but one with "#" or the sign of a reference
            assert any(sign in name for sign in ("#", "@::", "%::")) or (text == name and name not in HARMLESS)
            continue
        parser = ConfigParser(content)
        assert parser.get_parsed_content("run") == text


def test_quotes_keep_a_path_from_fire():
    """As in "'1e5'", which Fire takes for the text in the inner quotes."""
    require_as_typed(["--dataset_dir", "'1e5'", "--output_dir", '"[a]"'])
    assert parse_options(["--dataset_dir", "'1e5'", "--output_dir", "@cache_dir"]) == {
        "dataset_dir": "1e5", "output_dir": "@cache_dir",
    }  # fmt: skip


def test_expressions_stay_what_they_are():
    require_as_typed(["--output_dir", "$@bundle_root + '/runs#1'", "--model_file", "@other"])
    config = {"output_dir": "@bundle_root", "model_file": "$@bundle_root + '/a'", "bundle_root": "/x"}
    assert list(wrong_values(config, set())) == []
    (told,) = wrong_values({"output_dir": "@x"}, {"output_dir"})
    assert told.endswith("none of that name. A path of that name is ./@x.")


def test_an_ordinary_path_is_left_alone():
    assert verbatim(Path("/data/1.2.840")) == "/data/1.2.840"

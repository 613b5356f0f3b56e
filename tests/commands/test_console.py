# SPDX-License-Identifier: Apache-2.0
"""The program `pyraseg`: its table, the help and the examples of every command, its exit codes."""

import importlib
import re
import shlex
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from bundle.pyraseg.commands import COMMANDS, main
from bundle.pyraseg.core import mendable
from bundle.pyraseg.core.errors import EXTRAS
from tests.helpers.commands import ROOT

MODULES = {command: module for group in COMMANDS.values() for command, (module, _) in group.items()}
every = pytest.mark.parametrize("command", MODULES)


@every
def test_help_says_what_it_does_with_an_example_that_parses(command, capsys):
    module = importlib.import_module(MODULES[command])
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and said.startswith(f"usage: pyraseg {command}")
    assert module.__doc__.splitlines()[0] in said
    text = module.__doc__.replace("\\\n", " ")
    examples = re.findall(rf"^\s*(pyraseg {command}\b.*)$", text, re.MULTILINE)
    assert examples, f"{command} shows no example"
    for example in examples:
        module.arguments(shlex.split(example)[2:])


def test_the_table_names_every_module_and_every_program():
    own = {path.stem for path in (ROOT / "bundle/pyraseg/commands").glob("*.py")}
    tools = {path.stem for path in (ROOT / "bundle/pyraseg_tools/commands").glob("*.py")}
    named = {module.rpartition(".")[2] for module in MODULES.values()}
    assert own - named == {"__init__", "clicks", "console", "contest", "options", "photographs", "places", "run"}
    assert tools - named == {"__init__", "federated_site", "pacs_common", "pacs_listen", "parts"}
    scripts = [path.read_text() for path in (ROOT / "scripts").glob("*.py")]
    thin = [text for text in scripts if "from bundle.pyraseg.commands import main" in text]  # others keep the clone
    assert len(thin) > 15 and all(len(text.splitlines()) <= 10 for text in thin)
    assert {re.search(r'main\(\["([\w-]+)"', text)[1] for text in thin} <= set(MODULES)


def test_help_and_refusals_come_at_once_and_without_torch():
    for words, code, text in (
        ([], 0, "segment photo.jpg out"),
        (["--help"], 0, "Deploy:"),
        (["--version"], 0, "pyraseg "),
        (["segmnt"], 2, "The nearest name is 'segment'"),
    ):
        check = f"import sys; from bundle.pyraseg.commands import main\ntry: main({words})"
        check += "\nfinally: assert 'torch' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == code and text in done.stdout + done.stderr


def extras_by_package() -> dict[str, set[str]]:
    """Return the extras of each package that pyraseg itself does not need, by the name under which it is imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {Requirement(text).name.lower().replace("-", "_") for text in requirements}

    found: dict[str, set[str]] = {}
    for extra, requirements in project["optional-dependencies"].items():
        if extra not in ("dev", "runtime", "benchmark"):
            for name in names(requirements) - names(project["dependencies"]) - {"pyraseg"}:  # with another extra of it
                found.setdefault(name, set()).add(extra)
    return found


def test_every_package_of_an_extra_is_known_by_it():
    expected = extras_by_package()
    expected["onnx_ir"] = expected["onnxscript"]  # which brings it
    assert EXTRAS.keys() == expected.keys()
    assert all(extra in expected[name] for name, extra in EXTRAS.items())


@pytest.mark.slow
def test_segmenting_needs_no_extra(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(tmp_path / "one.png")
    names = [*extras_by_package(), "onnx_ir", "google", "google.protobuf"]
    for options in ([], ["--model", "nerves"]):
        out = tmp_path / f"out{len(options)}"
        check = f"""
import sys
sys.modules.update(dict.fromkeys({names}))  # as if none was installed
from bundle.pyraseg.commands import main
sys.exit(main(["segment", {str(tmp_path / "one.png")!r}, {str(out)!r}, *{options}]))
"""
        done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (out / "one.png").is_file()


@pytest.mark.slow
def test_help_needs_no_extra():
    names = [*extras_by_package(), "onnx_ir", "nvflare", "monailabel"]
    check = f"""
import contextlib, io, sys
sys.modules.update(dict.fromkeys({names}))  # as if none was installed
from bundle.pyraseg.commands import main
for command in {list(MODULES)}:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            code = main([command, "--help"])
        except SystemExit as end:
            code = end.code
    if code or not said.getvalue().startswith("usage: "):
        sys.exit(f"{{command}}: {{code}}")
"""
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_exit_codes(tmp_path, capsys):
    assert main(["segment", str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert "pyraseg: There is nothing at" in capsys.readouterr().err
    assert main(["train", "dermoscpy"]) == 1
    assert "The nearest name is 'dermoscopy'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["segment"])
    assert end.value.code == 2


def test_a_missing_package_is_told_with_its_extra():
    try:
        raise RuntimeError("MONAI says") from ModuleNotFoundError("no", name="tensorboard.compat")
    except RuntimeError as error:
        assert 'pip install "pyraseg[train]"' in str(mendable(error))
    assert mendable(ModuleNotFoundError("no", name="of_ours")) is None

# SPDX-License-Identifier: Apache-2.0
"""What the pages name is there: links, headings, programs with their options, configs with their knobs."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from bundle.pyraseg.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())

FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
MODULES = {command: module for group in COMMANDS.values() for command, (module, _) in group.items()}
#: Where monai.bundle takes an option that is no key of a config.
OF_MONAI = {"config_file", "meta_file", "logging_file", "tracking", "init_id", "final_id"}
#: Keys that the logging of experiments adds to a config, see `check_config`.
TRACKING = {"tracking_uri", "experiment_name", "run_name"}


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.replace("`", ""))
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


def commands(page: Path) -> list[list[str]]:
    """Return the commands of a page that call Python, as lists of words."""
    text = page.read_text(encoding="utf-8")
    blocks = [block.replace("\\\n", " ") for _, language, block in FENCED.findall(text) if not language]
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", prose(page))
    found = []
    for line in lines:
        if re.match(r"\s*(\S+/)?(python3? -m (monai\.bundle|bundle\.|benchmarks)|pyraseg [a-z]|pyraseg$)", line):
            words = shlex.split(line.split(" && ")[0].split(" > ")[0])
            found.append(words[words.index("-m") + 1 :] if "-m" in words else ["pyraseg", *words[1:]])
    return found


def is_placeholder(word: str) -> bool:
    """Return whether a word stands for what the reader puts in its place, such as TASK and OUT/proposal.json."""
    return bool(re.search(r"\b[A-Z]{2,}|\.\.\.|\$", word))


@pages
def test_links_lead_somewhere(page):
    for text, target in re.findall(r"\[([^]]*)\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"[{text}]({target})"
        if anchor:
            assert anchor in anchors(file), f"[{text}]({target}): {file.name} has {sorted(anchors(file))}"


@pages
def test_programs_and_their_options_exist(page):
    for module, *words in commands(page):
        if module not in ("pyraseg", "bundle.pyraseg.runtime"):
            assert module.startswith(("monai.", "benchmarks")), module
            continue
        if module == "pyraseg":
            command, *words = words or ["--help"]
            if command.startswith("--"):
                continue
            assert command in MODULES, f"{page.name}: pyraseg {command}"
            module = MODULES[command]
        else:
            module = f"{module}.__main__"
        file = ROOT / (module.replace(".", "/") + ".py")
        parts = [file, *file.parent.glob(f"{file.stem}_*.py")]  # a command of several forms has a file for each
        source = "\n".join(part.read_text(encoding="utf-8") for part in parts)
        known = {"--help", *re.findall(r"\"(--[\w-]+)\"", source)}
        if "parse_known_args" in source or "split_options" in source:  # takes the options of a config, too
            known |= {f"--{key}" for name in ("train", "inference") for key in config([f"configs/{name}.json"]).get()}
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known, f"pyraseg {module}: {sorted(options - known)}"


def config(files: list[str]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(ROOT / file) for file in files])
    return parser


def own_files(page: Path) -> dict[str, dict]:
    """Return the configs that a page has the reader write: "Write `NAME`:", then the JSON."""
    found = re.findall(r"rite `(\w+\.json)`:\s*```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return {name: ast.literal_eval(text.replace("null", "None").replace("true", "True")) for name, text in found}


@pages
def test_configs_exist_and_options_are_their_knobs(page):
    own = own_files(page)
    for module, *words in commands(page):
        if module != "monai.bundle" or words[0] != "run":
            continue
        options = {word[2:]: value for word, value in zip(words, [*words[1:], ""], strict=True) if word[:2] == "--"}
        named = options["config_file"]
        files = ast.literal_eval(named) if named.startswith("[") else [named]
        if any(is_placeholder(file) for file in files) or named.startswith("pyraseg_"):  # of an unpacked package
            continue
        for file in files:
            assert file in own or (ROOT / file).is_file(), f"{page.name}: {file}"
        parser = config([file for file in files if file not in own])
        keys = parser.get()
        assert words[1] in keys, f"{page.name}: run id {words[1]}"
        given = set(options) - OF_MONAI - TRACKING
        given |= {key for file in files if file in own for key in own[file]}
        base = config(files[:1])  # an overlay takes a knob out of use by null
        there = {key for key in given if key in parser}
        unused = {key for key in there if parser[key] is None and key in base and base[key] is not None}
        unknown = unused | (given - there)
        assert not unknown, f"{page.name}: {sorted(unknown)} are no knobs of {files}"


@pages
def test_configs_and_programs_in_prose_exist(page):
    """Files that a sentence names by their place in the repository are there."""
    for name in re.findall(r"`((?:configs|scripts|tests|benchmarks|bundle)/[\w./-]+\.\w+)`", prose(page)):
        if not is_placeholder(name):
            assert (ROOT / name).exists(), name


@pages
def test_pictures_are_small(page):
    for target in re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).stat().st_size < 150_000, target

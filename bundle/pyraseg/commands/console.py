# SPDX-License-Identifier: Apache-2.0
"""The table of the commands of `pyraseg`, and the program that runs one of them."""

import argparse
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from bundle.pyraseg.core import begin_run, keep_memory, mendable, nearest_hint, protect, wait_passively

#: Arguments of commands that say where to write; every other path of a command line is an input.
WRITTEN = {"output", "output_dir", "log", "target", "link", "folder", "page", "work_dir", "app_dir", "zoo"}
_OWN, _TOOLS = "bundle.pyraseg.commands", "bundle.pyraseg_tools.commands"
#: The commands in groups: name, module, and what it does in a line. A module is imported only when its command is run.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Use a model": {
        "segment": (f"{_OWN}.segment", "segment photographs, DICOM series and volumes"),
        "models": (f"{_OWN}.models", "list the available models"),
        "verify": (f"{_OWN}.verify", "verify a model package before its code is run"),
    },
    "Prepare data": {
        "list": (f"{_OWN}.list_series", "list the series in a folder, what can be chosen in them and what is left out"),
        "datalist": (f"{_OWN}.datalist", "pair images with labels, and split them by patient"),
        "check": (f"{_OWN}.check", "check a split for leaks and changed files"),
        "fingerprint": (f"{_TOOLS}.fingerprint", "measure a data set, and propose settings for its training"),
        "voc": (f"{_TOOLS}.voc", "convert DICOM and its labels to a Pascal VOC tree"),
        "click": (f"{_TOOLS}.click", "label images by clicks, in a page of this machine"),
        "download": (f"{_TOOLS}.download", "download, check and split a public data set"),
        "draw-photographs": (f"{_TOOLS}.draw_photographs", "draw synthetic photographs with masks, for trials"),
    },
    "Train and evaluate": {
        "train": (f"{_OWN}.train", "train a task"),
        "sweep": (f"{_TOOLS}.sweep", "train with several seeds and settings, and compare these"),
        "evaluate": (f"{_OWN}.evaluate", "score a trained model on the test part of its data"),
        "calibrate": (f"{_OWN}.calibrate", "calibrate the probabilities of a model"),
        "guard": (f"{_OWN}.guard", "teach a model which images are unlike those of its training"),
        "report": (f"{_OWN}.report", "write the report of an evaluation again"),
        "compare": (f"{_OWN}.compare", "compare two models that were evaluated on the same cases"),
        "compare-labels": (f"{_TOOLS}.compare_labels", "score one set of label maps against another"),
        "federation": (f"{_TOOLS}.federation", "federated learning without sharing images, simulated on this machine"),
    },
    "Deploy": {
        "export": (f"{_OWN}.export", "write a model as ONNX, from raw pixels to classes"),
        "quantize": (f"{_OWN}.quantize", "quantize an exported model to int8, if it stays as good"),
        "pick-form": (f"{_OWN}.pick_form", "time the exported forms of a model on this machine"),
        "zipapp": (f"{_TOOLS}.zipapp", "pack the runtime into one file that needs no PyTorch"),
        "triton": (f"{_TOOLS}.triton", "write a repository for Triton Inference Server"),
        "pacs": (f"{_TOOLS}.pacs", "segment series in a PACS"),
        "archive": (f"{_TOOLS}.archive", "segment an archive of many series, on one core or on a cluster"),
        "label": (f"{_TOOLS}.label", "serve packages through MONAI Label to 3D Slicer and OHIF"),
        "review": (f"{_TOOLS}.review", "store what people decide about results, and show it over time"),
    },
    "Share": {
        "package": (f"{_TOOLS}.package", "make a package of a task, with its model"),
        "publish": (f"{_TOOLS}.publish", "publish a package"),
        "network-table": (f"{_TOOLS}.network_table", "count the parameters and operations of every network"),
    },
}


class _CommandParser(argparse.ArgumentParser):
    """Parse the arguments of a command, and protect the files among its inputs from its results."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [name for name in self._option_string_actions if name.startswith("--")]
            mistyped = next((word.partition("=")[0] for word in unknown if word.startswith("--")), None)
            hint = nearest_hint(mistyped, known) if mistyped else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{hint} All: --help")
        begin_run()
        for name, value in vars(found).items():
            if name not in WRITTEN:
                values = value if isinstance(value, list) else [value]
                protect(path for path in values if isinstance(path, Path) and path.is_file())
        return found


def command_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """Return an empty parser of a command's arguments, with its module's docstring as its help."""
    return _CommandParser(
        prog=f"pyraseg {command}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its name and its arguments; None stands for those of the process.

    Returns:
        The exit code: 0 where all went well, 1 where the user can mend what did not, which is printed. What argparse
        refuses ends with 2.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    modules = {command: module for group in COMMANDS.values() for command, (module, _) in group.items()}
    if not words or words[0] not in modules:
        _explain(words, modules)
    name, *words = words
    keep_memory()
    wait_passively()
    # LoadImage builds every reader that MONAI knows, although ours are named; one of them tells that it is of no use.
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    logging.getLogger("monai.data").setLevel(logging.ERROR)
    try:
        return importlib.import_module(modules[name]).main(words) or 0
    except Exception as error:
        cause = mendable(error)
        if cause is None or os.environ.get("PYRASEG_TRACEBACK"):
            raise
        print(f"pyraseg: {cause}", file=sys.stderr)
        return 1


def _explain(words: list[str], commands: Collection[str]) -> NoReturn:
    """Print the table of commands or the version and end; end with 2 where the command is none."""
    width = max(map(len, commands)) + 2
    groups = [
        f"{title}:\n" + "\n".join(f"  {name:{width}}{line}" for name, (_, line) in group.items())
        for title, group in COMMANDS.items()
    ]
    parser = argparse.ArgumentParser(
        prog="pyraseg",
        usage="pyraseg COMMAND ...",
        description="Train, evaluate, deploy and share segmentation models for medical images.\n\n"
        + "\n\n".join(groups),
        epilog="pyraseg COMMAND --help tells what a command does, with an example.\n"
        "Five minutes: pyraseg segment photo.jpg out",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pyraseg {version('pyraseg')}")
    parser.add_argument("command", help=argparse.SUPPRESS)
    command = parser.parse_args(words[:1] or ["--help"]).command
    parser.error(f"there is no command {command!r}.{nearest_hint(command, commands)} All: --help")

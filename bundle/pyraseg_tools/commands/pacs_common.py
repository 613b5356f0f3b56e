# SPDX-License-Identifier: Apache-2.0
"""What `pyraseg pacs` takes and does, however images come and results go."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.pyraseg.core import PyrasegError, file_digest
from bundle.pyraseg.runtime import UNLIKE

if TYPE_CHECKING:  # behind the arguments, so that --help needs no extra
    from bundle.pyraseg_tools.pacs import Archive, Segmenter, Worker


def add_options(parser: argparse.ArgumentParser, *, work_dir: str) -> None:
    """Add the options that both ways have."""
    parser.add_argument("--outputs", default="seg",
                        help="DICOM objects to make, as `pyraseg segment --outputs` has them, with commas between; an "
                        "ONNX model makes seg alone (default: %(default)s)")  # fmt: skip
    parser.add_argument("--task", help="task of a model that is a FILE of weights (default: by its name)")
    parser.add_argument("--work-dir", type=Path, default=Path(work_dir),
                        help="folder of the journal, of images in use and of results on their way (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument("--retry-failed", action="store_true", help="retry series that failed before")
    parser.add_argument("--series", default="",
                        help="of the series found these alone: number, description ('portal*') or UID")  # fmt: skip
    parser.add_argument("--select", nargs="+", default=[], metavar="KEYWORD=VALUE",
                        help="select one of several phases or echoes of a series")  # fmt: skip
    parser.add_argument("--refuse", nargs="+", metavar="ASPECT",
                        help="in what images may not differ from those that the model is for: modality, body_part, "
                        "plane, pet_units (commas between several), or none (default: modality)")  # fmt: skip
    parser.add_argument("--unlike", choices=UNLIKE, default="warn",
                        help="what is done about series that are unlike those that the model was trained on (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="threads of the network (default: %(default)s)"
    )


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program where an option cannot be."""
    if options.threads < 1:
        parser.error(f"--threads is 1 or more, not {options.threads}")
    if not all("=" in item for item in options.select):
        parser.error("--select takes KEYWORD=VALUE")


def log_to_output() -> None:
    """Log what is done; not what other packages say, which quote headers and addresses."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("bundle").setLevel(logging.INFO)


def open_segmenter(options: argparse.Namespace) -> "Segmenter":
    """Return what segments with the model.

    Raises:
        PyrasegError: the model is none, or cannot do what is asked.
    """
    from bundle.pyraseg.dicom import read_selection
    from bundle.pyraseg.runtime import Model, tell_without_guard
    from bundle.pyraseg_tools.pacs import ProgramSegmenter, RuntimeSegmenter

    if not options.model.is_file():
        raise PyrasegError(f"There is no model {options.model}. Give a file that pyraseg export or train wrote.")
    if options.model.suffix == ".onnx" and (options.outputs != "seg" or options.task):
        raise PyrasegError("An ONNX model makes seg alone, and knows its task. For other outputs, give weights.")
    if options.model.suffix != ".onnx":
        more = {"unlike": options.unlike}
        if options.task:
            more["task"] = options.task
        if options.select:
            more["select"] = ",".join(options.select)
        if options.refuse:
            more["refuse"] = ",".join(options.refuse)
        return ProgramSegmenter(options.model.resolve(), options.outputs.split(","), more, threads=options.threads)
    model = Model(options.model, threads=options.threads)
    model.purpose(options.refuse)  # that it can be
    if options.unlike != "ignore" and model.guard is None:
        tell_without_guard(options.model)
    select = read_selection(options.select)
    return RuntimeSegmenter(model, select=select, refuse=options.refuse, unlike=options.unlike)


def journal_of(options: argparse.Namespace) -> Path:
    return options.work_dir / "journal.json"


def worker_of(options: argparse.Namespace, segmenter: "Segmenter", archive: "Archive", images: Path) -> "Worker":
    """Return the worker of a work folder, with what it remembers of the model.

    Args:
        options: those of `add_options`.
        segmenter, archive, images: see `Worker`.
    """
    from bundle.pyraseg_tools.pacs import Journal, Outbox, Worker

    journal = Journal(journal_of(options), model_hash=file_digest(options.model))
    if options.retry_failed:
        journal.forget_failures()
    return Worker(archive, segmenter, journal, images=images, outbox=Outbox(options.work_dir / "outbox"))

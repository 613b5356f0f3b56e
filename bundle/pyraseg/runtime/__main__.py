# SPDX-License-Identifier: Apache-2.0
"""Segment images with an exported model: python -m bundle.pyraseg.runtime MODEL INPUT OUTPUT."""

import argparse
import logging
import sys
from pathlib import Path

from bundle.pyraseg.core import (
    PyrasegError,
    describe,
    keep_memory,
    processors,
    protect,
    protecting_inputs,
    require_writable,
)
from bundle.pyraseg.runtime.guard import UNLIKE, tell_without_guard

FORMATS = ("png", "nifti", "seg")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="pyraseg-runtime", description="Segment DICOM series, PNG and JPEG files with an exported model."
    )
    parser.add_argument("model", type=Path, help="ONNX file that `pyraseg export` wrote")
    parser.add_argument("input", type=Path, help="a folder, searched recursively, or one file")
    parser.add_argument("output", type=Path, help="folder of the results, named as the inputs")
    parser.add_argument("--format", choices=FORMATS, default="png",
                        help="png: class values, a folder of slices for a series; nifti and seg (DICOM) need nibabel "
                        "and highdicom (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seg_type", default="BINARY",
                        help="of --format seg: BINARY, which every program reads, or LABELMAP, a byte a pixel however "
                        "many classes there are (default: %(default)s)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=processors(),
                        help="threads of the network (default: the processors there are, %(default)s)")  # fmt: skip
    parser.add_argument("--series", default="",
                        help="segment these DICOM series alone: number, description or UID, such as 'portal*'; several "
                        "with a semicolon between")  # fmt: skip
    parser.add_argument("--select", nargs="+", default=[], metavar="KEYWORD=VALUE",
                        help="what the slices of a series must have where it holds several phases or echoes, such as "
                        "EchoTime=4.6")  # fmt: skip
    parser.add_argument("--phase", default="",
                        help="of a series that holds several phases: the number of one, or all, each with its own "
                        "result (`pyraseg list` tells how many there are)")  # fmt: skip
    parser.add_argument("--refuse", nargs="+", metavar="ASPECT",
                        help="in what an image may not differ from those that the model is for: modality, body_part, "
                        "plane, pet_units (commas between several), or none; of the rest a line tells (default: "
                        "modality)")  # fmt: skip
    parser.add_argument("--unlike", choices=UNLIKE, default="warn",
                        help="what is done about an image that is unlike those that the model was trained on "
                        "(default: %(default)s)")  # fmt: skip
    options = parser.parse_args(argv)
    if options.threads < 1:
        parser.error(f"--threads is 1 or more, not {options.threads}")
    if not all("=" in item for item in options.select):
        parser.error("--select takes KEYWORD=VALUE")
    if options.seg_type != "BINARY" and options.format != "seg":
        parser.error("--seg_type is of --format seg")
    return options


def run(options: argparse.Namespace) -> int:
    """Segment everything, say so, and return how many inputs failed."""
    from bundle.pyraseg.runtime.find import find_inputs
    from bundle.pyraseg.runtime.images import segment
    from bundle.pyraseg.runtime.model import Model
    from bundle.pyraseg.runtime.writers import nifti_writer, png_writer, seg_writer

    require_writable([options.output])
    model = Model(options.model, threads=options.threads)
    writers = {
        "png": lambda: png_writer(model.structures),
        "nifti": lambda: nifti_writer(model.structures),
        "seg": lambda: seg_writer(model, seg_type=options.seg_type),
    }
    write = writers[options.format]()
    if options.refuse is not None:
        model.purpose(options.refuse)  # that it can be
    if options.unlike != "ignore" and model.guard is None:
        tell_without_guard(options.model)
    protect([options.model])
    select = _selection(options.select)
    found = {"series": options.series, "select": select, "phase": options.phase}
    inputs = find_inputs(options.input, leave_out=options.output, **found)
    name, version = model.algorithm
    print(f"{name} {version}: {len(inputs)} input(s) on {options.threads} thread(s)", flush=True)
    written, failures = [], []
    for item in inputs:
        try:
            if "fault" in item:
                raise PyrasegError(item["fault"])
            labels = segment(
                model, item["image"], select=select, refuse=options.refuse, unlike=options.unlike, name=item["name"]
            )
            paths = write(labels, options.output / item["name"])
        except Exception as error:
            failures.append(item["name"])
            print(f"{item['name']}: failed, {describe(error)}", file=sys.stderr, flush=True)
        else:
            written.append(paths)
            print(f"{item['name']} -> {', '.join(str(p.relative_to(options.output)) for p in paths)}", flush=True)
    there = sum(all(path.exists() for path in paths) for paths in written)
    print(f"{there} of {len(inputs)} inputs segmented, written to {options.output}", flush=True)
    if failures:
        print(f"pyraseg: {len(failures)} failed: {', '.join(failures)}", file=sys.stderr)
    return len(failures)


def _selection(words: list[str]) -> dict[str, object]:
    """Return what slices must have; where nothing is said, pydicom is not loaded for it."""
    if not words:
        return {}
    from bundle.pyraseg.dicom import read_selection

    return dict(read_selection(words))


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    keep_memory()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("pydicom").setLevel(logging.ERROR)  # its warnings quote values of headers
    logging.getLogger("bundle.pyraseg.runtime.find").setLevel(logging.INFO)  # the table of series, and what is left out
    try:
        with protecting_inputs():
            return 1 if run(options) else 0
    except PyrasegError as error:
        print(f"pyraseg: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

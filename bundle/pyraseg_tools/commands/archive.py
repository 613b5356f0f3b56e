# SPDX-License-Identifier: Apache-2.0
"""Segment an archive: every series of a folder, a PACS or object storage, each once.

pyraseg archive studies --to results --model models/model.onnx
pyraseg archive s3://bucket/studies --to s3://bucket/results --model models/model.onnx --workers 8
pyraseg archive https://pacs.example.org/dicom-web --to https://pacs.example.org/dicom-web --model models/model.onnx
pyraseg archive runs/archive/table.parquet --to results --model models/model.onnx --part 3/64

First it lists the source by headers alone, into a table; then it segments what the table has. A table can be looked at,
filtered with other programs and given in place of the source. A rerun does only what is missing. With several workers,
Ray is needed (pip install "pyraseg[ray]"): it runs them on this machine, or on the cluster at --address. A part, as of
a SLURM array, needs no Ray.

Credentials are read from the environment: of a PACS as `pyraseg pacs --help` says, of object storage by its own names
(AWS_ACCESS_KEY_ID ...). On a cluster they are set on each machine.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError, file_digest, require_writable
from bundle.pyraseg.runtime import UNLIKE
from bundle.pyraseg_tools.commands.parts import part_of

if TYPE_CHECKING:  # behind the arguments, so that --help needs no extra
    from bundle.pyraseg_tools.archive import Access, Listing, Wanted

logger = logging.getLogger(__name__)

TABLE, SUMMARY = "table.parquet", "summary.html"
#: Reasons to leave something out that are told; the table has all.
MOST_REASONS = 5


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("archive", __doc__)
    parser.add_argument("source", help="folder, DICOMweb address, s3://BUCKET/FOLDER (or gs://, az://), or a table")
    parser.add_argument("--to", dest="target", help="folder or address of the results; none: only list the source")
    parser.add_argument("--model", type=Path, required=True, help="ONNX file that `pyraseg export` wrote")
    parser.add_argument("--workers", type=int, default=1,
                        help="processes with the model; more than one needs Ray (default: %(default)s)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker (default: %(default)s)")
    parser.add_argument("--address", help="Ray cluster to run on: auto, ray://HEAD:10001; local starts one here")
    parser.add_argument("--part", type=part_of, default=(1, 1), metavar="N/OF",
                        help="do one part of the archive, such as 3/64 (default: all)")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS",
                        help="of one series, where Ray runs the workers (default: %(default)s)")  # fmt: skip
    parser.add_argument("--work-dir", type=Path, default=Path("runs/archive"),
                        help="folder of table, journal, summary, and images in use (default: %(default)s)")  # fmt: skip
    parser.add_argument("--retry-failed", action="store_true", help="retry series that failed in earlier runs")
    parser.add_argument("--filter", nargs="+", default=[], metavar="KEYWORD=VALUE",
                        help="of a PACS: list these alone, Modality=CT StudyDate=20260101-")  # fmt: skip
    parser.add_argument("--select", nargs="+", default=[], metavar="KEYWORD=VALUE",
                        help="select one of several phases or echoes of a series")  # fmt: skip
    parser.add_argument("--refuse", nargs="+", metavar="ASPECT",
                        help="in what images may not differ from those that the model is for: modality, body_part, "
                        "plane, pet_units (commas between several), or none (default: modality)")  # fmt: skip
    parser.add_argument("--unlike", choices=UNLIKE, default="warn",
                        help="what is done about series that are unlike those that the model was trained on (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument("--seg_type", default="BINARY", help="BINARY or LABELMAP (default: %(default)s)")
    parser.add_argument("--ca-bundle", type=Path, metavar="PEM", help="certificate authority of the hospital")
    parser.add_argument("--allow-http", action="store_true",
                        help="allow images to another machine without encryption")  # fmt: skip
    options = parser.parse_args(argv)
    for name in ("workers", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is 1 or more, not {getattr(options, name)}")
    if not options.timeout > 0:
        parser.error(f"--timeout is more than 0 seconds, not {options.timeout:g}")
    if not all("=" in item for item in options.select):
        parser.error("--select takes KEYWORD=VALUE")
    return options


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    from bundle.pyraseg.dicom import read_selection
    from bundle.pyraseg.runtime import Model, tell_without_guard
    from bundle.pyraseg_tools.archive import Access, Wanted, open_target
    from bundle.pyraseg_tools.commands.pacs_common import log_to_output

    log_to_output()
    logging.getLogger("bundle.pyraseg.dicom").setLevel(logging.ERROR)  # what the table says of each file
    model = Model(options.model, threads=options.threads)
    purpose = model.purpose(options.refuse)
    if options.unlike != "ignore" and model.guard is None:
        tell_without_guard(options.model)
    require_writable([options.work_dir])
    options.select = read_selection(options.select)
    access = Access(options.ca_bundle and options.ca_bundle.resolve(), options.allow_http)
    if options.target is not None:
        options.target = _absolute(options.target)
        open_target(options.target, access)  # that it can be
    table = _table(options, Wanted(purpose, options.select), access)
    if options.target is None:
        print(f"Nothing was segmented. To do so: pyraseg archive {table} --to TARGET --model {options.model}")
        return
    _segment(options, table, access)


def _absolute(address: str) -> str:
    """Return an address, that of a folder from the root: a worker may be somewhere else."""
    return address if "://" in address else str(Path(address).expanduser().resolve())


def _table(options: argparse.Namespace, wanted: "Wanted", access: "Access") -> Path:
    """Return the table of the source, listed now unless it is one already, and say what it has."""
    from bundle.pyraseg_tools.archive import left_out, read_table, write_table

    path = options.work_dir / TABLE
    if options.source.endswith(".parquet"):
        path = Path(options.source)
    else:
        logger.info("Listing %s", options.source)
        listing = _listing(options, wanted, access)
        write_table(path, listing.rows(), listing.join)
    series = sum(1 for row in read_table(path, files=False) if row.digest and not row.skip)
    logger.info("%s: %d series to segment", path, series)
    for reason, count, what, example in left_out(path)[:MOST_REASONS]:
        logger.info("left out: %d %s, %s (such as %s)", count, what, reason, example)
    return path


def _listing(options: argparse.Namespace, wanted: "Wanted", access: "Access") -> "Listing":
    from bundle.pyraseg_tools.archive import FolderListing, StoreListing, WebListing, is_store, is_web
    from bundle.pyraseg_tools.pacs import parse_filters

    if is_store(options.source):
        if options.target and options.target.rstrip("/") == options.source.rstrip("/"):
            raise PyrasegError(f"{options.source} is the address of images and of results. Give two.")
        return StoreListing(options.source, wanted, leave_out=[options.target or ""])
    if is_web(options.source):
        filters = parse_filters(options.filter, any_modality=bool(wanted.purpose.modality))
        return WebListing(access.connect(options.source), filters, wanted)
    folder = Path(options.source).expanduser()
    if not folder.is_dir():
        raise PyrasegError(f"There is no folder {folder}. Give a folder, an address, or a table of an earlier run.")
    own = [Path(options.target)] if options.target and "://" not in options.target else []
    if own and own[0] == folder.resolve():
        raise PyrasegError(f"{folder} is the folder of images and of results. Give two folders.")
    return FolderListing(folder, wanted, leave_out=[*own, options.work_dir])


def _segment(options: argparse.Namespace, table: Path, access: "Access") -> None:
    from bundle.pyraseg_tools.archive import (
        DONE,
        FAILED,
        Job,
        Journal,
        Progress,
        in_process,
        on_ray,
        standing,
        work_off,
        write_summary,
    )

    number, parts = options.part
    name = "journal" if parts == 1 else f"journal-{number}-of-{parts}"
    digest = file_digest(options.model)
    job = Job(
        model=options.model.resolve(),
        model_hash=digest,
        target=options.target,
        images=options.work_dir.resolve() / "images",
        access=access,
        select=options.select,
        refuse=None if options.refuse is None else tuple(options.refuse),
        unlike=options.unlike,
        seg_type=options.seg_type,
        threads=options.threads,
    )
    journal = Journal(options.work_dir / f"{name}.sqlite", model=job.key, target=options.target)
    before = standing(table, journal, options.part)
    ended = before[DONE] + (0 if options.retry_failed else before[FAILED])
    progress = Progress(before["due"], ended, lambda line: logger.info("%s", line))
    if options.workers == 1 and options.address is None:
        engine = in_process(job)
    else:
        address = None if options.address == "local" else options.address
        engine = on_ray(job, workers=options.workers, address=address, seconds=options.timeout)
    stopped = ""
    try:
        with engine as running:
            stopped = work_off(table, journal, running, progress, part=options.part, retry_failed=options.retry_failed)
    except KeyboardInterrupt:
        sys.exit("Stopped. What was done is remembered: the same command goes on.")
    finally:
        states = standing(table, journal, options.part)
        journal.close()
        write_summary(options.work_dir, table, options.work_dir / SUMMARY)
    logger.info("%s", progress)
    print(f"{states[DONE]} of {states['due']} series are in {options.target}; see {options.work_dir / SUMMARY}")
    if stopped:
        raise PyrasegError(f"Stopped: {stopped} The same command goes on.")
    if rest := states["due"] - states[DONE]:
        raise PyrasegError(
            f"{rest} series are not segmented, {states[FAILED]} of them failed. The lines above and "
            f"{options.work_dir / SUMMARY} say why. The same command does the rest; with --retry-failed, those that "
            "failed, too."
        )

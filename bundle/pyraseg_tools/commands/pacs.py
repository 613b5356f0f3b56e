# SPDX-License-Identifier: Apache-2.0
"""Segment series in a PACS with an exported model, and store the DICOM SEG in their studies, over DICOMweb.

pyraseg pacs https://pacs.example.org/dicom-web models/model.onnx --filter Modality=CT StudyDate=20260101-

Credentials are read from the environment: PYRASEG_PACS_USER and PYRASEG_PACS_PASSWORD, or PYRASEG_PACS_TOKEN. Finished
series are recorded, so an interrupted run continues where it stopped.
"""

import argparse
import hashlib
import logging
import os
import sys
from collections import Counter
from pathlib import Path

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime import UNLIKE


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("pacs", __doc__)
    parser.add_argument("url", help="DICOMweb address of the PACS; for Orthanc, it ends in /dicom-web")
    parser.add_argument("model", type=Path, help="ONNX file from `pyraseg export`")
    parser.add_argument("--filter", nargs="+", required=True, metavar="KEYWORD=VALUE",
                        help="series to segment, such as Modality=CT StudyDate=20260101-")  # fmt: skip
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--once", action="store_true", help="segment the present series, and end (the default)")
    mode.add_argument("--watch", type=float, metavar="SECONDS", help="repeat the search at this interval")
    mode.add_argument("--dry-run", action="store_true", help="list the series that would be segmented")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/pacs"),
                        help="folder of the journal, and of images in use (default: %(default)s)")  # fmt: skip
    parser.add_argument("--retry-failed", action="store_true", help="retry series that failed before")
    parser.add_argument("--ca-bundle", type=Path, metavar="PEM", help="certificate authority of the hospital")
    parser.add_argument("--allow-http", action="store_true",
                        help="allow images to another machine without encryption")  # fmt: skip
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
    options = parser.parse_args(argv)
    if options.threads < 1:
        parser.error(f"--threads is 1 or more, not {options.threads}")
    if options.watch is not None and not options.watch >= 1:
        parser.error(f"--watch is 1 second or more, not {options.watch:g}")
    if not all("=" in item for item in options.select):
        parser.error("--select takes KEYWORD=VALUE")
    return options


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    # Behind the arguments, so that --help needs no extra.
    from bundle.pyraseg.dicom import read_selection, read_wanted
    from bundle.pyraseg.runtime import Model, tell_without_guard
    from bundle.pyraseg_tools.pacs import Journal, Worker, connect, find_series, is_due, parse_filters, sole_user, watch

    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("bundle").setLevel(logging.INFO)  # warnings of other packages quote headers and addresses
    filters, wanted = parse_filters(options.filter), read_wanted(options.series)
    client = connect(options.url, environment=os.environ, ca_bundle=options.ca_bundle, allow_http=options.allow_http)
    model = Model(options.model, threads=options.threads)
    model.purpose(options.refuse)  # that it can be
    if options.unlike != "ignore" and model.guard is None:
        tell_without_guard(options.model)
    model_hash = hashlib.sha256(options.model.read_bytes()).hexdigest()
    path = options.work_dir / "journal.json"
    if options.dry_run:
        journal, found = Journal(path, model_hash=model_hash), find_series(client, filters, series=wanted)
        for series in found:
            entry = journal[series.uid]
            state = "due" if entry is None or is_due(series, entry) else entry.status
            print(f"{series.uid}: {series.modality}, {series.instances} images, {state}")
        due = sum(is_due(series, journal[series.uid]) for series in found)
        print(f"{due} of {len(found)} series would be segmented with {options.model}; nothing was done")
        return
    with sole_user(options.work_dir) as images:
        journal = Journal(path, model_hash=model_hash)
        if options.retry_failed:
            journal.forget_failures()
        select = read_selection(options.select)
        worker = Worker(client, model, journal, images, select=select, refuse=options.refuse, unlike=options.unlike)
        try:
            if options.watch is not None:
                watch(worker, filters, series=wanted, seconds=options.watch)
            found = find_series(client, filters, series=wanted)
            failures = worker.work_off(found)
        except KeyboardInterrupt:
            sys.exit("Stopped. What was done is remembered.")
        states = Counter(entry.status for series in found if (entry := journal[series.uid]))
    print(f"{states['stored']} of {len(found)} series are segmented in the PACS; recorded in {path}")
    if failures or states["failed"]:
        raise PyrasegError(f"{len(found) - states['stored']} series are not; the lines above, or {path}, say why.")

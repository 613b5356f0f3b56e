# SPDX-License-Identifier: Apache-2.0
"""Segment series in a PACS, and store the results in their studies.

pyraseg pacs https://pacs.example.org/dicom-web models/model.onnx --filter Modality=CT StudyDate=20260101-
pyraseg pacs listen models/model.onnx --peer CT1 --to PACS@localhost:4242 --plain both

The first form searches over DICOMweb, and stores DICOM SEG. Credentials are read from the environment:
PYRASEG_PACS_USER and PYRASEG_PACS_PASSWORD, or PYRASEG_PACS_TOKEN. Finished series are recorded, so an interrupted run
continues where it stopped.

The second form takes studies that scanners or the PACS send, by DICOM's own protocol: pyraseg pacs listen --help
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError, file_digest
from bundle.pyraseg_tools.commands import pacs_listen
from bundle.pyraseg_tools.commands.pacs_common import (
    add_options,
    check_options,
    journal_of,
    log_to_output,
    open_segmenter,
    worker_of,
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["listen"]:
        return pacs_listen.arguments(words[1:])
    parser = command_parser("pacs", __doc__)
    parser.add_argument("url", help="DICOMweb address of the PACS; for Orthanc, it ends in /dicom-web")
    parser.add_argument("model", type=Path, help="ONNX file from `pyraseg export`, or weights, which take longer")
    parser.add_argument("--filter", nargs="+", required=True, metavar="KEYWORD=VALUE",
                        help="series to segment, such as Modality=CT StudyDate=20260101-")  # fmt: skip
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--once", action="store_true", help="segment the present series, and end (the default)")
    mode.add_argument("--watch", type=float, metavar="SECONDS", help="repeat the search at this interval")
    mode.add_argument("--dry-run", action="store_true", help="list the series that would be segmented")
    parser.add_argument("--ca-bundle", type=Path, metavar="PEM", help="certificate authority of the hospital")
    parser.add_argument("--allow-http", action="store_true",
                        help="allow images to another machine without encryption")  # fmt: skip
    add_options(parser, work_dir="runs/pacs")
    options = parser.parse_args(argv)
    if options.watch is not None and not options.watch >= 1:
        parser.error(f"--watch is 1 second or more, not {options.watch:g}")
    check_options(parser, options)
    return options


def main(argv: list[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["listen"]:
        pacs_listen.main(words[1:])
        return
    options = arguments(argv)
    # Behind the arguments, so that --help needs no extra.
    from bundle.pyraseg.dicom import read_wanted
    from bundle.pyraseg_tools.pacs import (
        Journal,
        WebArchive,
        connect,
        find_series,
        is_due,
        parse_filters,
        sole_user,
        watch,
    )

    log_to_output()
    filters, wanted = parse_filters(options.filter), read_wanted(options.series)
    client = connect(options.url, environment=os.environ, ca_bundle=options.ca_bundle, allow_http=options.allow_http)
    segmenter = open_segmenter(options)
    path = journal_of(options)
    if options.dry_run:
        journal = Journal(path, model_hash=file_digest(options.model))
        found = find_series(client, filters, series=wanted)
        for series in found:
            entry = journal[series.uid]
            state = "due" if entry is None or is_due(series, entry) else entry.status
            print(f"{series.uid}: {series.modality}, {series.instances} images, {state}")
        due = sum(is_due(series, journal[series.uid]) for series in found)
        print(f"{due} of {len(found)} series would be segmented with {options.model}; nothing was done")
        return
    with sole_user(options.work_dir) as images:
        worker = worker_of(options, segmenter, WebArchive(client), images)
        try:
            if options.watch is not None:
                watch(client, worker, filters, series=wanted, seconds=options.watch)
            found = find_series(client, filters, series=wanted)
            failures = worker.work_off(found)
        except KeyboardInterrupt:
            sys.exit("Stopped. What was done is remembered.")
        states = Counter(entry.status for series in found if (entry := worker.journal[series.uid]))
    print(f"{states['stored']} of {len(found)} series are segmented in the PACS; recorded in {path}")
    if failures or states["failed"]:
        raise PyrasegError(f"{len(found) - states['stored']} series are not; the lines above, or {path}, say why.")

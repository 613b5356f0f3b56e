# SPDX-License-Identifier: Apache-2.0
"""Take studies by C-STORE, segment each when it is complete, and send the results to a PACS by C-STORE.

pyraseg pacs listen models/model.onnx --address 10.0.0.5 --peer CT1 MR2 --to PACS@pacs.example.org:2762
    --tls-certificate own.pem --tls-key own.key --tls-authority hospital.pem
pyraseg pacs listen models/model.onnx --peer PACS --to PACS@localhost:4242 --plain both --fetch 1.2.840.1 --once

Only the AE titles that are named may call. Received images and results on their way survive a stop at any point; images
are removed when their results have arrived. docs/conformance.md says what is spoken.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.commands.pacs_common import (
    add_options,
    check_options,
    journal_of,
    log_to_output,
    open_segmenter,
    worker_of,
)

if TYPE_CHECKING:
    from bundle.pyraseg_tools.dimse import TlsFiles
    from bundle.pyraseg_tools.pacs import RemoteSeries


def own_parser() -> argparse.ArgumentParser:
    """Return the parser; docs/conformance.md states its defaults."""
    parser = command_parser("pacs listen", __doc__)
    parser.add_argument("model", type=Path, help="ONNX file from `pyraseg export`, or weights, which take longer")
    node = parser.add_argument_group("this node")
    node.add_argument("--title", default="PYRASEG", help="its AE title (default: %(default)s)")
    node.add_argument("--address", default="127.0.0.1",
                      help="of this machine, to listen at; 0.0.0.0 for all that it has (default: %(default)s, which no "
                      "other machine reaches)")  # fmt: skip
    node.add_argument("--port", type=int, default=11112, help="TCP port to listen at (default: %(default)s)")
    others = parser.add_argument_group("other nodes")
    others.add_argument("--peer", nargs="+", required=True, metavar="TITLE",
                        help="AE titles that may send images; --to and --from may, too")  # fmt: skip
    others.add_argument("--to", required=True, metavar="TITLE@HOST:PORT", help="where results go")
    others.add_argument("--commitment", choices=("offered", "required", "never"), default="offered",
                        help="have --to vouch for the results: where it offers that, always, or never (default: "
                        "%(default)s)")  # fmt: skip
    others.add_argument("--commitment-wait", type=float, default=60, metavar="SECONDS",
                        help="for it; later it is asked again (default: %(default)g)")  # fmt: skip
    others.add_argument("--fetch", nargs="+", default=[], metavar="STUDY_UID",
                        help="have these studies sent here, by C-MOVE")  # fmt: skip
    others.add_argument("--from", dest="source", metavar="TITLE@HOST:PORT", help="where they are (default: --to)")
    safety = parser.add_argument_group("encryption")
    safety.add_argument("--tls-certificate", type=Path, metavar="PEM", help="certificate of this node")
    safety.add_argument("--tls-key", type=Path, metavar="PEM", help="its key")
    safety.add_argument("--tls-authority", type=Path, metavar="PEM",
                        help="who signed the certificates of other nodes; one that calls without such a certificate is "
                        "refused")  # fmt: skip
    safety.add_argument("--plain", choices=("receive", "send", "both"), default="",
                        help="what goes without TLS")  # fmt: skip
    study = parser.add_argument_group("studies")
    study.add_argument("--quiet", type=float, default=30, metavar="SECONDS",
                       help="without a new image, after which a study is complete (default: %(default)g)")  # fmt: skip
    study.add_argument("--modality", nargs="+", default=[], help="segment these series alone, such as CT")
    study.add_argument("--keep", choices=("failed", "all", "none"), default="failed",
                       help="received images that stay when their series is done (default: %(default)s)")  # fmt: skip
    study.add_argument("--retry", type=float, default=60, metavar="SECONDS",
                       help="after which what the PACS or this machine failed at is tried again (default: "
                       "%(default)g)")  # fmt: skip
    study.add_argument("--once", action="store_true", help="end when nothing is left to do")
    study.add_argument("--max-gb", type=float, default=50, help="of received images (default: %(default)g)")
    study.add_argument("--max-object-mb", type=float, default=1024, help="of one object (default: %(default)g)")
    add_options(parser, work_dir="runs/listen")
    return parser


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = own_parser()
    options = parser.parse_args(argv)
    for name in ("quiet", "retry", "commitment_wait", "max_gb", "max_object_mb"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name.replace('_', '-')} is more than 0, not {getattr(options, name):g}")
    if not 0 <= options.port < 65536:
        parser.error(f"--port is below 65536, not {options.port}")
    if (options.tls_certificate is None) != (options.tls_key is None):
        parser.error("--tls-certificate and --tls-key belong together")
    check_options(parser, options)
    return options


def main(argv: list[str]) -> None:
    options = arguments(argv)
    # Behind the arguments, so that --help needs no extra.
    from bundle.pyraseg.dicom import read_wanted
    from bundle.pyraseg_tools.dimse import (
        Caller,
        Commitments,
        Inbox,
        Limits,
        Listener,
        NodeArchive,
        Retrieval,
        Sender,
        ae_title,
        attend,
        parse_peer,
    )
    from bundle.pyraseg_tools.pacs import sole_user

    log_to_output()
    title, target = ae_title(options.title), parse_peer(options.to)
    source = parse_peer(options.source) if options.source else target
    peers = [*map(ae_title, options.peer), target.title, source.title]
    files = _tls(options)
    receiving = None if options.plain in ("receive", "both") or files is None else files.for_callers()
    sending = None if options.plain in ("send", "both") or files is None else files.for_calling()
    wanted = _wanted(options.modality, read_wanted(options.series))
    segmenter, commitments = open_segmenter(options), Commitments()
    sender = Sender(
        Caller(title, target, sending), commitments, commitment=options.commitment, patience=options.commitment_wait
    )
    limits = Limits(object_bytes=int(options.max_object_mb * 2**20), bytes=int(options.max_gb * 2**30))
    with sole_user(options.work_dir) as images:
        inbox = Inbox(options.work_dir / "received", limits)
        worker = worker_of(options, segmenter, NodeArchive(inbox, sender), images)
        listener = Listener(
            inbox,
            commitments,
            title=title,
            peers=peers,
            address=(options.address, options.port),
            tls=receiving,
        )
        port = listener.start()
        try:
            print(
                f"{title} listens at {options.address}, port {port}, {'without' if receiving is None else 'by'} TLS; "
                f"results go to {target} {'without' if sending is None else 'by'} TLS",
                flush=True,
            )
            retrieve = Retrieval(Caller(title, source, sending), wanted)
            for study_uid in options.fetch:
                retrieve(study_uid)
                inbox.close(study_uid)
            attend(
                inbox,
                worker,
                quiet=options.quiet,
                retry=options.retry,
                keep=options.keep,
                is_wanted=wanted,
                once=options.once,
            )
        except KeyboardInterrupt:
            sys.exit("Stopped. What was received and done is remembered.")
        finally:
            listener.stop()
        done, failed = (len(worker.journal.of_status(status)) for status in ("stored", "failed"))
    print(f"The results of {done} series have arrived; recorded in {journal_of(options)}")
    if failed:
        raise PyrasegError(f"{failed} series have none; the lines above, or {journal_of(options)}, say why.")


def _tls(options: argparse.Namespace) -> "TlsFiles | None":
    """Return the files of TLS; None where nothing goes by it.

    Raises:
        PyrasegError: there are none, and it was not said that images may go without.
    """
    from bundle.pyraseg_tools.dimse import TlsFiles

    if options.plain == "both":
        return None
    if options.tls_certificate is None:
        raise PyrasegError(
            "Images would go without encryption. Give --tls-certificate and --tls-key, or allow it with --plain "
            "receive, send or both."
        )
    return TlsFiles(options.tls_certificate, options.tls_key, options.tls_authority)


def _wanted(modalities: list[str], series: Sequence[str]) -> "Callable[[RemoteSeries], bool]":
    """Return what tells the series that are asked for."""
    return lambda one: (not modalities or one.modality in modalities) and (not series or one.is_meant(series))

# SPDX-License-Identifier: Apache-2.0
"""Write docs/conformance.md, the DICOM Conformance Statement of `pyraseg pacs listen`, from the code.

python -m scripts.write_conformance
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from bundle.pyraseg_tools.commands import pacs_listen
from bundle.pyraseg_tools.dimse import (
    IMAGE_SYNTAXES,
    IMAGES,
    LEAST_VERSION,
    MOST_ASSOCIATIONS,
    MOST_BYTES_OF_A_PDU,
    PDU_BYTES,
    RESULT_SYNTAXES,
    RESULTS,
    SPOKEN,
    TIMEOUTS,
    Limits,
    Spoken,
    Status,
)

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "conformance.md"
#: Named by the standard, and not yet by pydicom 3.0.2.
NAMES = {"1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage"}


def text() -> str:
    """Return the statement as Markdown."""
    default = pacs_listen.own_parser().get_default
    limits, oldest = Limits(), LEAST_VERSION.name.replace("TLSv", "").replace("_", ".")
    return f"""# DICOM Conformance Statement

Of `pyraseg pacs listen` ([how to use it](pacs.md#studies-that-are-sent)), after PS3.2. Written from the code by
`python -m scripts.write_conformance`; a test fails when it is out of date. The DICOMweb client is described in
[Segmenting series in a PACS](pacs.md).

## Services

One application entity. Its AE title is set with `--title` (default {default("title")}), its TCP port with `--port`
(default {default("port")}).

{_table(["service", "SOP class UID", "SCU", "SCP", "when"], (_service(one) for one in SPOKEN))}

A node that reports a storage commitment in an association of its own proposes the SCP role for itself.
An object counts as delivered when the destination has answered its C-STORE request, and, where storage commitment is
in use, when the destination has reported that it is safe.

## Storage as SCP

Level 2 (full): every attribute is kept, byte for byte, in the transfer syntax in which it came, until the results of
its series are delivered. Each SOP class is accepted in each transfer syntax.

{_table(["SOP class", "UID"], _named(IMAGES))}

{_table(["transfer syntax", "UID"], _named(IMAGE_SYNTAXES))}

{_table(["status", "meaning"], ([f"{status:04X}H", status.meaning] for status in Status))}

An object is answered when it lies on the disk. The same SOP Instance UID again replaces the object.

## Storage as SCU

{_table(["SOP class", "UID"], _named(RESULTS))}

Objects that are not compressed are offered in the transfer syntaxes below, others in their own.

{_table(["transfer syntax", "UID"], _named(RESULT_SYNTAXES))}

Statuses B000H to BFFFH (warning) and 0111H (duplicate SOP instance) count as stored. A7xxH, 0110H and 0124H are tried
again. All others are a failure of the series. An object keeps its SOP Instance UID whenever and however often it is
sent.

## Associations

{
        _table(
            ["", ""],
            [
                [
                    "calling AE titles that are accepted",
                    "of `--peer`, `--to` and `--from`; others are rejected (permanent, 3)",
                ],
                ["called AE titles that are accepted", "that of `--title`; others are rejected (permanent, 7)"],
                ["simultaneous associations as acceptor", f"{MOST_ASSOCIATIONS}; more are rejected (transient, 2)"],
                ["simultaneous associations as requestor", "1"],
                ["asynchronous operations", "none"],
                [
                    "maximum length of a PDU that is received",
                    f"{PDU_BYTES} bytes; a connection that announces more than {MOST_BYTES_OF_A_PDU} is closed",
                ],
                [
                    "implementation class UID, version name",
                    f"{PYNETDICOM_IMPLEMENTATION_UID}, {PYNETDICOM_IMPLEMENTATION_VERSION} (pynetdicom)",
                ],
                [
                    "timeouts: connection, association, answer, network",
                    f"{TIMEOUTS.connection:g} s, {TIMEOUTS.acse:g} s, {TIMEOUTS.dimse:g} s, {TIMEOUTS.network:g} s",
                ],
            ],
        )
    }

## Limits

{
        _table(
            ["", "default", "option"],
            [
                ["one object", f"{limits.object_bytes // 2**20} MB", "`--max-object-mb`"],
                ["all received objects", f"{limits.bytes // 2**30} GB", "`--max-gb`"],
                ["number of received objects", f"{limits.objects}", ""],
                ["time without a new object after which a study is complete", f"{default('quiet'):g} s", "`--quiet`"],
                ["time for a storage commitment", f"{default('commitment_wait'):g} s", "`--commitment-wait`"],
            ],
        )
    }

## Security

TLS, {oldest} or later, with the cipher suites that OpenSSL has by default (PS3.15 B.9, BCP 195).
With `--tls-authority`, a node that calls must show a certificate of that authority. A node that is called must always
show a certificate that is trusted and that names its host. Without TLS, the option `--plain` is required. User identity
negotiation, digital signatures and attribute confidentiality profiles are not supported.

## Character sets

Results have the character set of their images. Queries contain UIDs only.
"""


def _service(one: Spoken) -> list[str]:
    yes = {True: "yes", False: ""}
    return [one.name, str(one.sop_class or "see below"), yes[one.calls], yes[one.answers], one.use]


def _named(uids: Sequence[UID]) -> Iterable[list[str]]:
    return ([NAMES.get(str(uid), uid.name), str(uid)] for uid in uids)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"Wrote {FILE.relative_to(ROOT)}")

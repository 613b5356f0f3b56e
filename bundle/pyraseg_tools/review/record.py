# SPDX-License-Identifier: Apache-2.0
"""What a person decided about a result: the decision, who and when, of which model, on an image of which scanner."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.labels import is_automatic

#: What can be decided about a result.
DECISIONS = ("accepted", "amended", "rejected")
FORMAT = 1
#: Characters of a reviewer's name at most.
LONGEST = 64


@dataclass(frozen=True)
class Algorithm:
    """Hold which model made a result.

    Attributes:
        name: of the program or bundle.
        version: of it, with the weights where it is one of ours.
    """

    name: str
    version: str

    @property
    def weights(self) -> str:
        """Return the first digits of the SHA-256 of the weights, or nothing where the version has none."""
        found = re.search(r"weights ([0-9a-f]{12})", self.version)
        return found[1] if found else ""


@dataclass(frozen=True)
class Result:
    """Hold which result was reviewed.

    Attributes:
        uid: SOP Instance UID; one that stands for it where the label server has shown it and stored no object.
        series_uid: of the object; "" where none was stored.
        algorithm: that made it.
    """

    uid: str
    series_uid: str
    algorithm: Algorithm

    @classmethod
    def of(cls, segmentation: Dataset, where: object) -> Self:
        """Read it from the header of a DICOM SEG (PS3.3 C.8.20.2 and 10.16).

        Args:
            segmentation: its header.
            where: its file, for messages.

        Raises:
            PyrasegError: it is no SEG that a model made alone.
        """
        segments = segmentation.get("SegmentSequence") or []
        if not segments or not is_automatic(segmentation):
            kinds = sorted({str(item.get("SegmentAlgorithmType") or "none") for item in segments})
            found = f"its Segment Algorithm Type is {', '.join(kinds)}" if segments else "it has no segments"
            raise PyrasegError(f"{where} is no result of a model: {found}. Give the AUTOMATIC segmentation itself.")
        made = next(item for item in segments if item.get("SegmentAlgorithmType") == "AUTOMATIC")
        told = (made.get("SegmentationAlgorithmIdentificationSequence") or [Dataset()])[0]
        name = str(told.get("AlgorithmName") or made.get("SegmentAlgorithmName") or "not stated")
        algorithm = Algorithm(name, str(told.get("AlgorithmVersion") or "not stated"))
        return cls(str(segmentation.SOPInstanceUID), str(segmentation.SeriesInstanceUID), algorithm)


@dataclass(frozen=True)
class Review:
    """Hold one decision about a result. It names no patient.

    Attributes:
        decision: one of `DECISIONS`.
        reviewer: user name or role of who decided.
        time: in UTC, as ISO 8601 has it: "2026-11-30T11:32:13+00:00".
        result: which one.
        image_series_uid: Series Instance UID of the image.
        manufacturer, model_name: of the scanner, from the header of the image; "" where it states none.
        correction: SOP Instance UID of the segmentation that takes the place of the result, or "".
        dice: of result and correction, by structure; those that are in neither are left out. Empty where nothing was
            compared.
    """

    decision: str
    reviewer: str
    time: str
    result: Result
    image_series_uid: str
    manufacturer: str
    model_name: str
    correction: str = ""
    dice: Mapping[str, float] = field(default_factory=dict)

    @property
    def scanner(self) -> str:
        """Return what images of one scanner have in common."""
        return " ".join(filter(None, [self.manufacturer, self.model_name])) or "not stated"

    @property
    def model(self) -> str:
        """Return what results of one model have in common: its name and the hash of its weights, else its version."""
        algorithm = self.result.algorithm
        return f"{algorithm.name} {algorithm.weights or algorithm.version}"

    @property
    def month(self) -> str:
        return self.time[:7]

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def of_line(cls, content: Any, where: str) -> Self:
        """Return it from the content of such a line.

        Raises:
            PyrasegError: it is none, or one of another version.
        """
        made_by = content.get("format") if isinstance(content, dict) else None
        if made_by not in (None, FORMAT):
            raise PyrasegError(
                f"{where} is of format {made_by}, this program's is {FORMAT}. Use that version's program."
            )
        try:
            given = {one.name: content[one.name] for one in fields(cls)}
            told = given.pop("result")
            result = Result(told["uid"], told["series_uid"], Algorithm(**told["algorithm"]))
            found = cls(result=result, **given)
            datetime.fromisoformat(found.time)
            sound = found.decision in DECISIONS and all(0 <= value <= 1 for value in found.dice.values())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PyrasegError(f"{where} is no review ({type(error).__name__}). Move the file away.") from error
        if not sound:
            raise PyrasegError(f"{where} holds a decision or a Dice that cannot be. Move the file away.")
        return found


def decide(
    decision: str,
    result: Result,
    image: Dataset,
    reviewer: str,
    *,
    correction: str = "",
    dice: Mapping[str, float] | None = None,
) -> Review:
    """Return a decision that is made now.

    Args:
        decision: one of `DECISIONS`.
        result: which one.
        image: header of an image that the result was made of.
        reviewer: see `require_no_patient`.
        correction: SOP Instance UID of the segmentation that takes its place, if any.
        dice: of the two by structure; NaN (in neither) is left out.

    Raises:
        PyrasegError: the name of the reviewer is none, or the patient's.
    """
    return Review(
        decision,
        require_no_patient(reviewer, image),
        datetime.now(UTC).isoformat(timespec="seconds"),
        result,
        str(image.get("SeriesInstanceUID") or ""),
        _line(image.get("Manufacturer")),
        _line(image.get("ManufacturerModelName")),
        correction,
        {name: value for name, value in (dice or {}).items() if not math.isnan(value)},
    )


def require_no_patient(reviewer: str, image: Dataset) -> str:
    """Return the name of a reviewer, which is a user name or a role, and not what names the patient of an image.

    Raises:
        PyrasegError: it is empty, too long, no line of text, or the patient's name or identity.
    """
    name = reviewer.strip()
    if not 0 < len(name) <= LONGEST or not name.isprintable():
        raise PyrasegError(f"A reviewer is a user name or a role of one line and at most {LONGEST} characters.")
    known = [str(image.get(keyword) or "") for keyword in ("PatientName", "PatientID")]
    if _plain(name) in {_plain(text) for text in known} - {""}:
        raise PyrasegError("The reviewer is called as the patient of the image. Give a user name or a role.")
    return name


def _plain(text: str) -> str:
    return " ".join(text.replace("^", " ").split()).casefold()


def _line(value: Any) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in str(value or "")).split())


def read_result(path: Path) -> tuple[Result, Dataset]:
    """Return which result a file holds, and its header.

    Raises:
        PyrasegError: it is no SEG that a model made alone.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except (OSError, InvalidDicomError) as error:
        raise PyrasegError(f"{path} cannot be read as DICOM. Give the DICOM SEG of a result.") from error
    return Result.of(header, path), header

# SPDX-License-Identifier: Apache-2.0
"""Who a patient is: the one rule of splits, of the search for leaks, of the conversion to VOC and of the label server.

What somebody states comes first: a data list, a table, or a pattern on names. Else DICOM tells: images with the same
Patient ID, study or frame of reference are one patient's. An image that nothing is known of is a patient of its own.
Identifiers are compared without the blanks around them and else as they are; an empty one is unknown.
"""

import logging
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bundle.pyraseg.core import PyrasegError, read_csv

logger = logging.getLogger(__name__)

#: What tells one patient from another: Patient ID where it says something; Patient ID at its word; the study alone.
GROUPINGS = ("auto", "patient", "study")
#: Attributes that `Identity.of` asks for beyond those that a scan reads.
PATIENT_KEYWORDS = ("PatientID", "IssuerOfPatientID")


@dataclass(frozen=True)
class Identity:
    """Hold what tells whose an image is; "" is unknown. `image` is its name, for messages."""

    image: str
    patient_id: str = ""
    issuer: str = ""
    study_uid: str = ""
    frame_of_reference_uid: str = ""
    stated: str = ""  # by people, who know better than headers

    @classmethod
    def of(cls, header: Dataset, image: str, stated: str = "") -> "Identity":
        """Return what the header of an image tells."""
        keywords = (*PATIENT_KEYWORDS, "StudyInstanceUID", "FrameOfReferenceUID")
        patient, issuer, study, frame = (str(header.get(name) or "").strip() for name in keywords)
        return cls(image, patient, issuer, study, frame, stated.strip())


def group_patients(
    identities: Sequence[Identity],
    by: str = "auto",
    *,
    strict: bool = True,
    naming: str = "in a table",
) -> list[str]:
    """Return for each image a running number that it shares with the images of the same patient, see `join`.

    Args:
        identities: of each image.
        by: "auto" refuses Patient IDs that are empty or the same in all of several studies, as those of a careless
            anonymization; "patient" believes the latter; "study" leaves Patient IDs out of account.
        strict: refuse them; else images of unknown patients are patients of their own, and a warning counts them.
        naming: how a user names the patients, for messages.

    Raises:
        PyrasegError: nobody can tell which of several studies are one patient's.
    """
    if by not in GROUPINGS:
        raise PyrasegError(f"Patients are told apart by one of {', '.join(GROUPINGS)}, not by {by!r}.")
    without_issuer = {identity.patient_id for identity in identities if not identity.issuer}
    keys = [_keys(identity, by, without_issuer) for identity in identities]
    groups = join(keys)
    own = [place for place, identity in enumerate(identities) if not identity.stated]
    if by == "study" or not own:
        return groups
    known = {group for group, identity in zip(groups, identities, strict=True) if identity.patient_id}
    unknown = [place for place in own if groups[place] not in known]
    remedy = f"Name the patients {naming}, or give --group-by study if each study is a patient."
    if unknown and strict and len(set(groups)) > 1:
        raise PyrasegError(
            f"{len(unknown)} of {len(identities)} images have no Patient ID, such as {identities[unknown[0]].image}: "
            f"their patients are unknown, and a split must not divide a patient. {remedy}"
        )
    if unknown and not strict:
        logger.warning(
            "%d of %d images have no known patient: each counts as one patient (of DICOM, each study)",
            len(unknown), len(identities),
        )  # fmt: skip
    ids = {key for place in own for key in keys[place] if key[0] == "patient"}
    studies = len(set(join([_keys(identities[place], "study", without_issuer) for place in own])))
    if strict and by == "auto" and len(ids) == 1 and studies > 1:
        raise PyrasegError(
            f"All {len(own)} images have the same Patient ID, in {studies} studies: one patient, or an anonymization "
            f"that made all IDs equal? {remedy} If it is one patient, give --group-by patient."
        )
    patients = len({groups[place] for place in own})
    if not unknown and patients < len(ids):
        logger.warning("%d Patient IDs are %d patients: some share a study or a frame of reference", len(ids), patients)
    return groups


def _keys(identity: Identity, by: str, without_issuer: set[str]) -> set[tuple[str, ...]]:
    """Return what an image shares with others of its patient.

    An issuer tells apart patients of the same ID only where all images with this ID name one.
    """
    if identity.stated:
        return {("stated", identity.stated)}
    keys: set[tuple[str, ...]] = {
        ("study", identity.study_uid),
        ("frame of reference", identity.frame_of_reference_uid),
    }
    if by != "study":
        issuer = "" if identity.patient_id in without_issuer else identity.issuer
        keys.add(("patient", identity.patient_id, issuer))
    return {key for key in keys if key[1]} or {("image", identity.image)}


def patients_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    """Return for each name of a case what the first group of a regular expression finds in it.

    Raises:
        PyrasegError: the pattern is no regular expression, has no group, or finds nothing in some names.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise PyrasegError(f"patient_pattern {pattern!r} is no regular expression: {error}.") from error
    if expression.groups < 1:
        raise PyrasegError(
            f"patient_pattern {pattern!r} has no group: put the part that names the patient in parentheses."
        )
    found = [match.group(1).strip() if (match := expression.search(name)) and match.group(1) else "" for name in names]
    silent = [name for name, patient in zip(names, found, strict=True) if not patient]
    if silent:
        raise PyrasegError(
            f"patient_pattern {pattern!r} finds no patient in the names of {len(silent)} cases, such as {silent[0]}."
        )
    return found


def patients_from_csv(names: Sequence[str], table: Path) -> list[str]:
    """Return for each case the patient that a CSV file with the columns `case` and `patient` names.

    Raises:
        PyrasegError: the file is absent, lacks a column, names a case twice with two patients, or leaves a case out.
    """
    patients: dict[str, str] = {}
    for row in read_csv(table, ["case", "patient"], remedy="Write both, a line for each case."):
        case, patient = (row["case"] or "").strip(), (row["patient"] or "").strip()
        if patients.setdefault(case, patient) != patient:
            raise PyrasegError(f"{table} gives the case {case} to two patients. Give it to one.")
    absent = [name for name in names if not patients.get(name)]
    if absent:
        raise PyrasegError(f"{table} names no patient for {len(absent)} of {len(names)} cases, such as {absent[0]}.")
    return [patients[name] for name in names]


def join(keys: Sequence[Iterable[Hashable]], pairs: Iterable[tuple[int, int]] = ()) -> list[str]:
    """Return a name for each of N cases, the same for cases that are linked, directly or through others.

    Names are running numbers in the order of the cases (`p0001`, ...): whom they stand for is not told.

    Args:
        keys: of each case; cases that share one are linked.
        pairs: indices of further cases that are linked.
    """
    numbers: dict[Hashable, int] = {}
    edges = [(case, len(keys) + numbers.setdefault(key, len(numbers))) for case, own in enumerate(keys) for key in own]
    edges += list(pairs)
    total = len(keys) + len(numbers)
    rows, columns = np.array(edges, int).reshape(-1, 2).T
    _, component = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(total, total)), False)
    names: dict[int, str] = {}
    return [names.setdefault(int(number), f"p{len(names) + 1:04d}") for number in component[: len(keys)]]

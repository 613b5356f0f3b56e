# SPDX-License-Identifier: Apache-2.0
"""Tell which series belong to one patient, so that a split keeps them together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.datalists import join

#: What tells one patient from another: PatientID where it says something; PatientID at its word; the study alone.
GROUPINGS = ("auto", "patient", "study")


@dataclass(frozen=True)
class Identity:
    """Hold what the header of a series says of its patient; "" for what it does not."""

    series: str  # for messages
    patient_id: str
    study_uid: str
    frame_of_reference_uid: str
    stated: str | None = None  # by the user, who knows better


def group_patients(identities: Sequence[Identity], by: str = "auto") -> list[str]:
    """Return a name for the patient of each series.

    Series with the same Patient ID, Study Instance UID or Frame of Reference UID are one patient's. What the user
    stated of a series comes before all three.

    Args:
        identities: of each series.
        by: "auto" refuses Patient IDs that are empty or the same in all of several studies, as those of a careless
            anonymization; "patient" believes the latter; "study" leaves Patient IDs out of account.

    Raises:
        PyrasegError: nobody can tell which of several studies are one patient's.
    """
    if by not in GROUPINGS:
        raise PyrasegError(f"Patients are told apart by one of {', '.join(GROUPINGS)}, not by {by!r}.")
    groups = join([_keys(identity, by) for identity in identities])
    own = [place for place, identity in enumerate(identities) if identity.stated is None]
    remedy = "Name the patients in a table, or take each study for a patient (group by study) if that is so."
    if by == "study" or not own:
        return groups
    known = {groups[place] for place in own if identities[place].patient_id.strip()}
    unknown = [place for place in own if groups[place] not in known]
    if unknown and len(set(groups)) > 1:
        raise PyrasegError(
            f"{len(unknown)} of {len(identities)} series have no Patient ID, such as {identities[unknown[0]].series}: "
            f"nobody can tell whose they are, and a split must not tear a patient apart. {remedy}"
        )
    ids = Counter(identities[place].patient_id.strip() for place in own)
    studies = len(set(join([_keys(identities[place], "study") for place in own])))
    if by == "auto" and len(ids) == 1 and studies > 1:
        raise PyrasegError(
            f"All {len(own)} series have the same Patient ID, in {studies} studies: one patient, or an anonymization "
            f"that made all alike? {remedy} If it is one patient, group by patient."
        )
    return groups


def _keys(identity: Identity, by: str) -> set[tuple[str, str]]:
    """Return what a series shares with others of its patient."""
    if identity.stated is not None:
        return {("stated", identity.stated)}
    keys = {("study", identity.study_uid), ("frame of reference", identity.frame_of_reference_uid)}
    if by != "study":
        keys.add(("patient", identity.patient_id.strip()))
    return {key for key in keys if key[1]} or {("series", identity.series)}

# SPDX-License-Identifier: Apache-2.0
"""What a series is called in its header, without the words there that name somebody."""

import re
from collections.abc import Iterator

from pydicom.dataset import Dataset

#: Whose values no description shows: the patient, and everybody else who is named.
NAMING = (
    *("PatientID", "PatientName", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName"),
    *("PatientMotherBirthName", "ReferringPhysicianName", "ConsultingPhysicianName", "PerformingPhysicianName"),
    *("OperatorsName", "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician"),
    *("ResponsiblePerson", "AccessionNumber"),
)
#: What stands in the place of such a word.
HIDDEN = "***"
#: Shorter words of Latin letters and digits are hidden only where they stand alone: Ann is not in "scanner".
LONG = 4
#: Words that begin alike are the same name with something behind it: Schmidt, Schmidts, Schmidt2.
STEM = 5


def hide_names(header: Dataset) -> None:
    """Put a mark in place of every word of a header's description that is one of a name or an ID in the header.

    What begins as such a word does counts as one: rather a harmless word is hidden than a name shown.
    """
    text = description_of(header)
    if not text:
        return
    words = set(_words(header))
    for stem in sorted({word[:STEM] for word in words if len(word) >= STEM}):
        text = re.sub(rf"(?<![^\W_]){re.escape(stem)}[^\W_]*", HIDDEN, text, flags=re.IGNORECASE)
    for word in sorted(words, key=lambda word: (-len(word), word)):
        alone = len(word) < LONG and word.isascii()
        pattern = rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" if alone else re.escape(word)
        text = re.sub(pattern, HIDDEN, text, flags=re.IGNORECASE)
    header.SeriesDescription = text


def description_of(header: Dataset) -> str:
    """Return the description of a series on one line."""
    value = str(header.get("SeriesDescription") or "")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())


def _words(header: Dataset) -> Iterator[str]:
    """Yield the words of names and IDs; a lone letter is none."""
    for keyword in NAMING:
        for word in re.split(r"[\W_]+", str(header.get(keyword) or "")):
            if len(word) > 1 or (word and not word.isascii()):
                yield word

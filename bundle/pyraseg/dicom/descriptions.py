# SPDX-License-Identifier: Apache-2.0
"""What a series is called in its header, without the words there that name somebody."""

import re
import unicodedata
from collections.abc import Iterator

from pydicom.datadict import dictionary_VR, keyword_dict
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import Tag

#: Whose values no description shows: everybody who is named, and the IDs of the patient and of the request.
NAMING = (
    *sorted(keyword for keyword, tag in keyword_dict.items() if keyword and dictionary_VR(tag) == "PN"),
    *("PatientID", "OtherPatientIDs", "OtherPatientIDsSequence", "PatientBirthDate", "AccessionNumber"),
)
NAMING_TAGS = frozenset(map(Tag, NAMING))
#: What is shown of a header, and may have a name within.
SHOWN = ("SeriesDescription", "BodyPartExamined")
#: Words that are no names in a body part, even where an ID has them, as in PANCREAS-0001 (PS3.16, Annex L).
PARTS = (
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM BLADDER BONE BRAIN BREAST BODY CARDIAC CAROTID CHEST CHESTABDOMEN "
    "CHESTABDPELVIS CLAVICLE COLON CSPINE EAR ELBOW ESOPHAGUS EXTREMITY EYE FEMUR FINGER FOOT GALLBLADDER HAND HEAD "
    "HEADNECK HEART HIP KIDNEY KNEE LEG LIVER LSPINE LUNG NECK ORBIT OVARY PANCREAS PELVIS PROSTATE RECTUM SHOULDER "
    "SKIN SKULL SPINE SPLEEN SSPINE STOMACH TESTIS THIGH THORAX THYROID TSPINE UTERUS WHOLEBODY WRIST"
)
#: What stands in the place of such a word.
HIDDEN = "***"
#: Shorter words of Latin letters and digits are hidden only where they stand alone: Ann is not in "scanner".
LONG = 4
#: Words that begin alike are the same name with something behind it: Schmidt, Schmidts, Schmidt2.
STEM = 5
_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa", "æ": "ae"}
    | {"Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "Ø": "Oe", "Å": "Aa", "Æ": "Ae"}
)


def is_personal(keyword: str) -> bool:
    """Return whether the values of an attribute may say who the patient is, or name somebody."""
    place = keyword in ("PatientPosition", "PatientOrientation")
    return keyword in NAMING or "OtherPatient" in keyword or (keyword.startswith("Patient") and not place)


def hide_names(header: Dataset) -> None:
    """Put a mark in place of every word of a header's description and body part that is of a name or an ID in it.

    What begins as such a word does counts as one: rather a harmless word is hidden than a name shown. Names of body
    parts stay in the body part, which models are compared by.
    """
    if not any(header.get(keyword) for keyword in SHOWN):
        return
    words = {spelling for word in _words(header) for spelling in _spellings(word)}
    if text := description_of(header):
        header.SeriesDescription = _hidden(text, words)
    if part := header.get("BodyPartExamined"):
        text = " ".join(map(str, part)) if isinstance(part, MultiValue) else str(part)
        header.BodyPartExamined = re.sub(
            r"[^\W_]+", lambda found: found[0] if found[0].upper() in PARTS.split() else _hidden(found[0], words), text
        )


def _hidden(text: str, words: set[str]) -> str:
    """Return a text with a mark in place of some words, and of what begins as they do."""
    beginnings = tuple(word[:STEM].casefold() for word in words if len(word) >= STEM)
    text = re.sub(r"[^\W_]+", lambda found: HIDDEN if _is_spelt(found[0], beginnings) else found[0], text)
    for stem in sorted({word[:STEM] for word in words if len(word) >= STEM}):
        text = re.sub(rf"(?<![^\W_]){re.escape(stem)}[^\W_]*", HIDDEN, text, flags=re.IGNORECASE)
    for word in sorted(words, key=lambda word: (-len(word), word)):
        alone = len(word) < LONG and word.isascii()
        pattern = rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" if alone else re.escape(word)
        text = re.sub(pattern, HIDDEN, text, flags=re.IGNORECASE)
    return text


def description_of(header: Dataset) -> str:
    """Return the description of a series on one line."""
    value = str(header.get("SeriesDescription") or "")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())


def _words(header: Dataset) -> Iterator[str]:
    """Yield the words of names and IDs; a lone letter is none."""
    for tag in header.keys() & NAMING_TAGS:
        value = header[tag].value or ""
        for text in [item.get("PatientID", "") for item in value] if isinstance(value, Sequence) else [value]:
            for word in re.split(r"[\W_]+", str(text)):
                if len(word) > 1 or (word and not word.isascii()):
                    yield word


def _spellings(word: str) -> set[str]:
    """Return a word as it is, without its accents, and with letters for them as German and Nordic names have."""
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", word) if not unicodedata.combining(letter))
    return {word, bare, word.translate(_LETTERS)}


def _is_spelt(word: str, beginnings: tuple[str, ...]) -> bool:
    """Return whether a word with accents begins as a name without them."""
    return not word.isascii() and any(one.casefold().startswith(beginnings) for one in _spellings(word))

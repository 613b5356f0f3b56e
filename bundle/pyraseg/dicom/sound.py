# SPDX-License-Identifier: Apache-2.0
"""What of an image's header may stand in an object about it: values as they are, mended, or none.

Scanners, archives and anonymizers break the standard; what is written about their images must not.
"""

import datetime
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import pydicom.charset
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import generate_uid
from pydicom.valuerep import PersonName

from bundle.pyraseg.dicom.geometry import PLACE_KEYWORDS
from bundle.pyraseg.dicom.grids import is_unpacked
from bundle.pyraseg.dicom.headers import file_of, frame_count

LOGGER = logging.getLogger(__name__)

#: Attributes of the patient and the study that must be there and may be empty (type 2, PS3.3 C.7.1.1 and C.7.2.1).
MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
#: Those of a clinical trial that must be there, and those that may be empty, where one of them is (C.7.1.3, C.7.2.3).
TRIAL = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID")
TRIAL_EMPTY = (
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialTimePointID",
)  # fmt: skip
#: All of the patient and the study that goes into an object about their images.
PATIENT_AND_STUDY = (
    *MAY_BE_EMPTY, "StudyInstanceUID", "IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight",
    "PatientIdentityRemoved", "DeidentificationMethod", "StudyDescription", *TRIAL, *TRIAL_EMPTY,
)  # fmt: skip
#: What took the images, and what it did to them.
EQUIPMENT = (
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "InstitutionName",
    "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "AcquisitionDateTime",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
#: What else the first image tells about all of them.
SERIES = ("SeriesNumber", "PositionReferenceIndicator", "PatientOrientation", "ContentDate", "ContentTime", *EQUIPMENT)
SHARED_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
UIDS = ("SOPClassUID", "SOPInstanceUID", *SHARED_UIDS)
CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")

#: Values of attributes that have no others.
ENUMERATED = {
    "PatientSex": ("M", "F", "O"),
    "PatientIdentityRemoved": ("YES", "NO"),
    "LossyImageCompression": ("00", "01"),
    "BurnedInAnnotation": ("YES", "NO"),
}
LENGTHS = {"LO": 64, "SH": 16, "ST": 1024, "LT": 10240}
NAME_GROUPS, NAME_COMPONENTS, NAME_LENGTH = 3, 5, 64
_FORMS = {
    "AS": re.compile(r"\d{3}[DWMY]"),
    "CS": re.compile(r"[A-Z0-9 _]{1,16}"),
    "DT": re.compile(r"\d{4}((0[1-9]|1[0-2])(([0-2]\d|3[01])(([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?)?)?)?"
                     r"([+-][01]\d[0-5]\d)?"),
    "IS": re.compile(r"[+-]?\d{1,10}"),
    "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
    "UI": re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+"),
}  # fmt: skip
_DIRECTION = re.compile(r"[APRLHF]{1,3}")
_REPLACED = "\ufffd"  # stands where bytes are no text in the stated character set
LONGEST_UID, LONGEST_NUMBER, MOST_INTEGER = 64, 16, 2**31 - 1
UTF_8 = "ISO_IR 192"


def sound_uid(uid: object) -> str:
    """Return a UID as it is, or one that follows from it where it breaks the standard; "" for none.

    >>> sound_uid("1.2.840.10008.1.2"), sound_uid("1.2.03") == sound_uid("1.2.03 ") != "1.2.03"
    ('1.2.840.10008.1.2', True)
    """
    text = str(uid or "").strip(" \0")
    return text if not text or _is_uid(text) else str(generate_uid(entropy_srcs=[text]))


def _is_uid(text: str) -> bool:
    return len(text) <= LONGEST_UID and bool(_FORMS["UI"].fullmatch(text))


def unsound_uids(sources: Iterable[Dataset]) -> list[str]:
    """Return the attributes whose UIDs some images have in a form that no object may refer to."""
    texts = [(name, str(source.get(name) or "").strip(" \0")) for source in sources for name in UIDS]
    return sorted({name for name, text in texts if text and not _is_uid(text)})


def sound_sources(sources: Sequence[Dataset]) -> list[Dataset]:
    """Return headers with what objects about these images take from them, all of it as the standard wants it.

    The first one speaks of patient, study and equipment; each has its UIDs and its place. A value that breaks the
    standard is mended where it is plain what was meant (2020.01.01, a fourth group of a name, a lower-case code), and
    left out otherwise; one line in the log names the attributes. A malformed UID becomes one that follows from it
    (`sound_uid`). Slices that were read as one stack although each has a frame of reference of its own get the
    first of these; without any they get one that follows from their series.

    Args:
        sources: one for each slice, or one for all; a multi-frame image may stand several times, and does so in what
            is returned.
    """
    faults: dict[str, str] = {}
    first = _described(sources[0], faults)
    found: dict[int, Dataset] = {}
    for source in sources:
        if id(source) in found:
            continue
        header = found[id(source)] = first if source is sources[0] else Dataset()
        for name in (*UIDS, "BurnedInAnnotation"):
            _take(source, header, name, faults)
        header.Rows, header.Columns = source.Rows, source.Columns
        for name in PLACE_KEYWORDS:
            if name in source:
                header[name] = source[name]
        if hasattr(source, "filename"):
            header.filename = source.filename
    frame = next((header.FrameOfReferenceUID for header in found.values() if "FrameOfReferenceUID" in header), None)
    if frame is None:
        faults["FrameOfReferenceUID"] = "made up"
        frame = generate_uid(entropy_srcs=[first.SeriesInstanceUID, "frame of reference"])
    for header in found.values():
        header.FrameOfReferenceUID = frame
    _tell(sources[0], faults)
    return [found[id(source)] for source in sources]


def _tell(source: Dataset, faults: dict[str, str]) -> None:
    if not faults:
        return
    listed = [
        f"{', '.join(names)} {what}"
        for what in sorted(set(faults.values()))
        if (names := sorted(name for name, how in faults.items() if how == what))
    ]
    unknown = [name for name, how in faults.items() if name in UIDS and how == "mended"]
    note = f" No viewer finds images by a mended {unknown[0]}: write a copy of the series with UIDs of its own " \
           "(--complete_headers true of the inference)." if unknown else ""  # fmt: skip
    LOGGER.warning("%s: its header breaks the standard. In what is written about the series: %s.%s",
                   file_of(source), "; ".join(listed), note)  # fmt: skip


def _described(source: Dataset, faults: dict[str, str]) -> Dataset:
    """Return what an image tells of patient, study, series and equipment."""
    header = Dataset()
    charset = source.get("SpecificCharacterSet")
    if _encodings(charset):
        header.SpecificCharacterSet = charset
    elif charset:
        faults["SpecificCharacterSet"] = "replaced"
    for name in (*PATIENT_AND_STUDY, *SERIES):
        _take(source, header, name, faults)
    for name in MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    _require_company(source, header, faults)
    return header


def _require_company(source: Dataset, header: Dataset, faults: dict[str, str]) -> None:
    """Leave out attributes that have to stand beside others which are not there."""
    codes = _codes(source)
    if codes:
        header.DeidentificationMethodCodeSequence = codes
    if header.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in header and not codes:
        del header.PatientIdentityRemoved
        faults["PatientIdentityRemoved"] = "left out"
    trial = [name for name in (*TRIAL, *TRIAL_EMPTY) if name in header]
    if trial and any(name not in header for name in TRIAL):
        for name in trial:
            del header[name]
            faults[name] = "left out"
    elif trial:
        for name in TRIAL_EMPTY:
            if name not in header:
                setattr(header, name, "")
    described = [name for name in ("LossyImageCompressionRatio", "LossyImageCompressionMethod") if name in header]
    same = len({header[name].VM for name in described}) == 1
    if described and (header.get("LossyImageCompression") != "01" or (len(described) == 2 and not same)):
        for name in described:
            del header[name]
            faults[name] = "left out"
    orientation = header.get("PatientOrientation")
    if orientation and (header["PatientOrientation"].VM != 2 or not all(map(_DIRECTION.fullmatch, orientation))):
        del header.PatientOrientation
        faults["PatientOrientation"] = "left out"


def _codes(source: Dataset) -> list[Dataset]:
    """Return the codes that tell how an image was de-identified, none if one of them is faulty."""
    try:
        items = list(source.get("DeidentificationMethodCodeSequence") or [])
        codes = []
        for item in items:
            faults: dict[str, str] = {}
            codes.append(Dataset())
            for name in CODE:
                _take(item, codes[-1], name, faults)
            if faults or any(name not in codes[-1] for name in CODE):
                return []
        return codes
    except Exception:  # No sequence, or a damaged one, of which pydicom raises nearly any type.
        return []


def _take(source: Dataset, header: Dataset, name: str, faults: dict[str, str]) -> None:
    """Give a header the values of an attribute as the standard wants them, or none."""
    texts = _texts(source, name)
    if not texts:
        if texts is None:
            faults[name] = "left out"
        return
    vr = dictionary_VR(name)
    if dictionary_VM(name) == "1":
        texts = texts if len(set(texts)) > 1 else texts[:1]
    values = [_sound(vr, text, ENUMERATED.get(name)) for text in texts]
    if not all(values) or (dictionary_VM(name) == "1" and len(values) > 1):
        faults[name] = "left out"
        return
    if values != texts:
        faults[name] = "mended"
    header.add_new(Tag(name), vr, values if len(values) > 1 else values[0])


def _texts(source: Dataset, name: str) -> list[str] | None:
    """Return the values of an attribute as texts without padding; [] where it is absent or empty, None for no texts."""
    raw = source.get_item(name)
    if raw is None:
        return []
    try:
        value = source[name].value
    except Exception:  # Malformed values make pydicom raise nearly any type.
        return None
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    if not all(one is None or isinstance(one, str | int | float) or _is_name(one) for one in values):
        return None
    texts = ["" if one is None else str(one).strip(" \0") for one in values]
    if dictionary_VR(name) in pydicom.charset.CUSTOMIZABLE_CHARSET_VR:
        texts = [_decoded(text, raw, source) for text in texts]
    return texts if any(texts) else []


def _is_name(value: object) -> bool:
    return isinstance(value, PersonName)


def _decoded(text: str, raw: DataElement | RawDataElement, source: Dataset) -> str:
    """Return a text as it was meant, where its bytes are none in the character set that the header states."""
    if text.isascii():
        return text
    if _encodings(source.get("SpecificCharacterSet")):
        if _REPLACED not in text or not isinstance(raw, RawDataElement) or not raw.value:
            return text.replace(_REPLACED, "?")
        meant = raw.value.strip(b" \0")
    else:  # pydicom takes Latin-1 for what nobody states, which loses nothing
        try:
            meant = text.encode("latin-1")
        except UnicodeEncodeError:
            return text.replace(_REPLACED, "?")
    try:
        return meant.decode("utf-8")
    except UnicodeDecodeError:
        return meant.decode("latin-1")


def _encodings(charset: object) -> list[str]:
    """Return Python's encodings of a Specific Character Set; none where it is absent, or names one that is unknown."""
    names = [str(name) for name in charset] if isinstance(charset, MultiValue | list) else [str(charset or "")]
    if not any(names) or not all(name in pydicom.charset.python_encoding for name in names):
        return []
    if len(names) > 1 and not all(name == "" or name.startswith("ISO 2022") for name in names):
        return []
    return pydicom.charset.convert_encodings(names)


def reference_to(header: Dataset, frame_number: int | None = None) -> Dataset:
    """Return an item that refers to an image, or to one of its frames, from 1, if it has frames; a mosaic has none."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    multi_frame = frame_count(header) > 1 or "PerFrameFunctionalGroupsSequence" in header
    if frame_number is not None and multi_frame and not is_unpacked(header):
        item.ReferencedFrameNumber = int(frame_number)
    return item


def series_number(header: Dataset, offset: int) -> int:
    """Return the number of a series about the images, which lies so far behind theirs."""
    number = int(header.get("SeriesNumber") or 0)
    return (number if 0 <= number <= MOST_INTEGER - offset else 0) + offset


def state_character_set(dataset: Dataset) -> None:
    """Let a finished object state a character set that has all of its texts; the one that it states, where it has."""
    texts = [
        str(value)
        for element in dataset.iterall()
        if element.VR in pydicom.charset.CUSTOMIZABLE_CHARSET_VR and element.value
        for value in (element.value if element.VM > 1 else [element.value])
    ]
    texts = [text for text in texts if not text.isascii()]
    encodings = _encodings(dataset.get("SpecificCharacterSet"))
    if texts and not (encodings and all(_survives(text, encodings) for text in texts)):
        dataset.SpecificCharacterSet = UTF_8


def _survives(text: str, encodings: list[str]) -> bool:
    encoded = pydicom.charset.encode_string(text, encodings)
    return pydicom.charset.decode_bytes(encoded, encodings, pydicom.charset.TEXT_VR_DELIMS) == text


def _sound(vr: str, text: str, enumerated: Sequence[str] | None = None) -> str:
    """Return a value as PS3.5 6.2 wants it, or "" where that is none."""
    if vr == "UI":
        return sound_uid(text)
    mend = _MENDERS.get(vr)
    text = mend(text) if mend else text
    if vr in LENGTHS:
        return text if len(text) <= LENGTHS[vr] else ""
    form = _FORMS.get(vr)
    if (form and not form.fullmatch(text)) or (enumerated and text not in enumerated):
        return ""
    return text


def _plain(text: str) -> str:
    """Take out characters that control a terminal."""
    return "".join(character for character in text if unicodedata.category(character) != "Cc").strip()


def _name(text: str) -> str:
    """Keep of a person's name what may stand: three groups of five components, each group not too long."""
    groups = ["^".join(group.split("^")[:NAME_COMPONENTS])[:NAME_LENGTH] for group in _plain(text).split("=")]
    return "=".join(groups[:NAME_GROUPS]).rstrip("=")


def _date(text: str) -> str:
    """Bring a date into today's form from that of ACR-NEMA (1994.11.05) or of ISO 8601."""
    parts = re.split("[./-]", text)
    digits = "".join(part.zfill(2) for part in parts) if len(parts) == 3 else text
    try:
        return digits if datetime.datetime.strptime(digits, "%Y%m%d") and re.fullmatch(r"\d{8}", digits) else ""
    except ValueError:
        return ""


def _time(text: str) -> str:
    """Bring a time into today's form from that of ACR-NEMA (11:20:00), in microseconds at most."""
    whole, _, fraction = "".join(part.zfill(2) for part in text.split(":")).partition(".")
    return f"{whole}.{fraction[:6]}" if fraction else whole


def _number(text: str) -> str:
    """Write a number in the characters that a decimal string may have."""
    if len(text) <= LONGEST_NUMBER and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return text
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return ""
    return f"{value:.10g}" if abs(value) < float("inf") else ""


_MENDERS: dict[str, Callable[[str], str]] = {
    "AS": lambda text: text.upper().zfill(4),
    "CS": lambda text: text.upper(),
    "DA": _date,
    "DS": _number,
    "IS": lambda text: text if re.fullmatch(r"[+-]?\d+", text) and abs(int(text)) <= MOST_INTEGER else "",
    "LO": _plain,
    "PN": _name,
    "SH": _plain,
    "TM": _time,
}

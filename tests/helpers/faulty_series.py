# SPDX-License-Identifier: Apache-2.0
"""Faults that scanners, archives and anonymizers leave in the headers of images, each as a change of a sound one."""

from collections.abc import Callable

import numpy as np
import pydicom.config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage

from tests.helpers.dicom_files import PATIENT, item, make_image, uid

SHAPE = (4, 24, 20)
SOUND = {**PATIENT, "PatientName": "Doe^Jane", "PatientID": "P1", "PatientSex": "F", "PatientBirthDate": "19500101",
         "StudyID": "7", "AccessionNumber": "A1", "StudyDescription": "Liver", "Manufacturer": "Maker",
         "SliceThickness": 3, "PixelSpacing": [1.5, 0.8], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}  # fmt: skip


def setting(**values: object) -> Callable[[Dataset], None]:
    """Set attributes to values of any form; None removes them."""

    def change(dataset: Dataset) -> None:
        for name, value in values.items():
            if value is None:
                dataset.pop(name, None)
            else:
                setattr(dataset, name, value)

    return change


def raw(name: str, vr: str, value: bytes, charset: bytes | None = None) -> Callable[[Dataset], None]:
    """Store bytes under an attribute, whatever its value representation, and state a character set."""

    def change(dataset: Dataset) -> None:
        for one, kind, content in ((name, vr, value), ("SpecificCharacterSet", "CS", charset)):
            if content is not None:
                content += b" " * (len(content) % 2)
                dataset[one] = RawDataElement(Tag(one), kind, len(content), content, 0, False, True)

    return change


#: By what is wrong: the change, and the attributes that a warning has to name ("" for none: nothing gets lost).
FAULTS: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "none": (lambda dataset: None, ""),
    # enumerated values
    "sex of another list": (setting(PatientSex="X"), "PatientSex"),
    "sex as a word": (setting(PatientSex="FEMALE"), "PatientSex"),
    "sex in lower case": (setting(PatientSex="m"), "PatientSex"),
    "sex with spaces": (setting(PatientSex="M "), ""),
    "sex twice": (setting(PatientSex=["M", "F"]), "PatientSex"),
    "identity removed in lower case": (setting(PatientIdentityRemoved="yes", DeidentificationMethod="x"),
                                       "PatientIdentityRemoved"),
    "identity removed by nothing": (setting(PatientIdentityRemoved="YES"), "PatientIdentityRemoved"),
    "compression that is neither": (setting(LossyImageCompression="YES"), "LossyImageCompression"),
    "compression without a ratio": (setting(LossyImageCompression="01"), ""),
    "compression with a ratio that is none": (raw("LossyImageCompressionRatio", "DS", b"high"),
                                              "LossyImageCompressionRatio"),
    # absent and empty
    "no patient": (setting(**dict.fromkeys(["PatientName", "PatientID", "PatientSex", "PatientBirthDate"])), ""),
    "no study": (setting(**dict.fromkeys(["StudyDate", "StudyTime", "StudyID", "AccessionNumber", "SeriesNumber"])),
                 ""),
    "no referring physician": (setting(ReferringPhysicianName=None), ""),
    "no modality": (setting(Modality=None), ""),
    "no frame of reference": (setting(FrameOfReferenceUID=None), "FrameOfReferenceUID"),
    "no thickness": (setting(SliceThickness=None), ""),
    "everything empty": (setting(**dict.fromkeys([*SOUND.keys() - {"PixelSpacing", "ImageOrientationPatient"},
                                                  "SeriesNumber"], "")), ""),
    "trial without a sponsor": (setting(ClinicalTrialProtocolID="P", ClinicalTrialSiteID="S"), "ClinicalTrialSiteID"),
    "trial": (setting(ClinicalTrialSponsorName="S", ClinicalTrialProtocolID="P", ClinicalTrialSubjectID="1"), ""),
    # UIDs
    "series UID with a leading zero": (setting(SeriesInstanceUID="1.2.03.4"), "SeriesInstanceUID"),
    "study UID with letters": (setting(StudyInstanceUID="1.2.abc"), "StudyInstanceUID"),
    "study UID too long": (setting(StudyInstanceUID="1." + "2" * 70), "StudyInstanceUID"),
    "frame of reference with a space": (setting(FrameOfReferenceUID="1.2 .3"), "FrameOfReferenceUID"),
    "frame of reference that is a word": (setting(FrameOfReferenceUID="none"), "FrameOfReferenceUID"),
    "UID that ends with a dot": (setting(StudyInstanceUID="1.2.3."), "StudyInstanceUID"),
    # lengths
    "long study ID": (setting(StudyID="1" * 40), "StudyID"),
    "long accession number": (setting(AccessionNumber="A" * 17), "AccessionNumber"),
    "long patient ID": (setting(PatientID="P" * 65), "PatientID"),
    "long name": (setting(PatientName="D" * 70 + "^Jane"), "PatientName"),
    "long description": (setting(StudyDescription="d" * 65), "StudyDescription"),
    "long manufacturer": (setting(Manufacturer="m" * 65), "Manufacturer"),
    "long software": (setting(SoftwareVersions=["s" * 65, "t"]), "SoftwareVersions"),
    # names
    "four groups of a name": (setting(PatientName="a^b=c^d=e^f=g^h"), "PatientName"),
    "seven components of a name": (setting(PatientName="a^b^c^d^e^f^g"), "PatientName"),
    "two names": (setting(PatientName=["Doe^Jane", "Roe^Jane"]), "PatientName"),
    "a name of one word": (setting(PatientName="DOE"), ""),
    "a name with a line break": (setting(PatientName="Doe\n^Jane"), "PatientName"),
    "physicians": (setting(ReferringPhysicianName=["A^B", "C^D"]), "ReferringPhysicianName"),
    # dates and times
    "dates with dots": (setting(StudyDate="2020.01.01", PatientBirthDate="1953-6-17"), "StudyDate"),
    "a date that is none": (setting(StudyDate="20201332"), "StudyDate"),
    "a date that is a word": (setting(PatientBirthDate="unknown"), "PatientBirthDate"),
    "a range of dates": (setting(StudyDate="20200101-20200201"), "StudyDate"),
    "a time with colons": (setting(StudyTime="11:20:00.5"), "StudyTime"),
    "a time that is none": (setting(StudyTime="256000"), "StudyTime"),
    "a time of nanoseconds": (setting(StudyTime="112000.123456789"), "StudyTime"),
    "content date that is none": (setting(ContentDate="today", ContentTime="now"), "ContentDate"),
    # numbers
    "a series number that is none": (raw("SeriesNumber", "IS", b"three"), "SeriesNumber"),
    "a series number too great": (raw("SeriesNumber", "IS", b"99999999999"), "SeriesNumber"),
    "a negative series number": (setting(SeriesNumber=-200), ""),
    "the greatest series number": (setting(SeriesNumber=2**31 - 1), ""),
    "a series number with a fraction": (raw("SeriesNumber", "IS", b"3.5"), "SeriesNumber"),
    "a weight with a comma": (raw("PatientWeight", "DS", b"72,5"), "PatientWeight"),
    "a weight with its unit": (raw("PatientWeight", "DS", b"72 kg"), "PatientWeight"),
    "a weight of many digits": (raw("PatientWeight", "DS", b"72.50000000000000001"), "PatientWeight"),
    "an age without zeros": (setting(PatientAge="45Y"), "PatientAge"),
    "an age that is a number": (setting(PatientAge="45"), "PatientAge"),
    "a thickness that is none": (raw("SliceThickness", "DS", b"n/a"), ""),
    "an orientation a little askew": (setting(ImageOrientationPatient=[1, 0.004, 0, 0, 1, 0]), ""),
    "an orientation a little long": (setting(ImageOrientationPatient=[1.003, 0, 0, 0, 1, 0]), ""),
    "all images under one UID": (setting(SOPInstanceUID="1.2.3"), ""),
    # several for one, and texts
    "two study IDs": (setting(StudyID=["1", "2"]), "StudyID"),
    "two patient IDs": (setting(PatientID=["1", "2"]), "PatientID"),
    "control characters": (setting(StudyDescription="a\x07b\x1bc"), "StudyDescription"),
    "a tab": (setting(PatientID="a\tb"), "PatientID"),
    # value representations
    "a patient ID of bytes": (raw("PatientID", "OB", b"\x00\x01\x02\x03"), "PatientID"),
    "a name as a number": (raw("PatientName", "US", b"\5\0"), ""),
    "a sequence for an ID": (raw("StudyID", "SQ", b""), "StudyID"),
    # character sets
    "UTF-8 that nobody states": (raw("PatientName", "PN", "Müller^Jörg".encode()), ""),
    "Latin-1 that nobody states": (raw("PatientName", "PN", "Müller^Jörg".encode("latin-1")), ""),
    "a character set that is none": (raw("PatientName", "PN", "Müller^Jörg".encode(), b"UTF-8"),
                                     "SpecificCharacterSet"),
    "an empty character set": (raw("PatientName", "PN", b"Doe^Jane", b""), ""),
    "Japanese": (raw("PatientName", "PN", b"Yamada^Tarou=\033$B;3ED\033(B^\033$BB@O:\033(B", b"\\ISO 2022 IR 87"), ""),
    "Cyrillic": (raw("PatientName", "PN", "Люкс^Анна".encode("iso8859_5"), b"ISO_IR 144"), ""),
}  # fmt: skip


def faulty_series(change: Callable[[Dataset], None]) -> list[Dataset]:
    """Return the slices of a CT, all with the same fault."""
    result = []
    with pydicom.config.disable_value_validation():
        for k in range(SHAPE[0]):
            dataset = make_image(np.full(SHAPE[1:], k, np.int16), **SOUND, ImagePositionPatient=[-20, 30, 100 + 3 * k],
                                 SOPInstanceUID=uid("faulty", k), InstanceNumber=k + 1,
                                 RescaleSlope=1, RescaleIntercept=0)  # fmt: skip
            change(dataset)
            result.append(dataset)
    return result


def faulty_enhanced(change: Callable[[Dataset], None]) -> Dataset:
    """Return an enhanced MR with a fault."""
    with pydicom.config.disable_value_validation():
        values = {name: value for name, value in SOUND.items()
                  if name not in ("SliceThickness", "PixelSpacing", "ImageOrientationPatient")}  # fmt: skip
        dataset = make_image(np.zeros(SHAPE, np.int16), **{**values, "SOPClassUID": EnhancedMRImageStorage,
                                                           "Modality": "MR"})  # fmt: skip
        dataset.SharedFunctionalGroupsSequence = item(
            PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
            PixelMeasuresSequence=item(PixelSpacing=[1.5, 0.8], SliceThickness=3),
        )
        frames = []
        for k in range(SHAPE[0]):
            frame = Dataset()
            frame.PlanePositionSequence = item(ImagePositionPatient=[-20, 30, 100 + 3 * k])
            frames.append(frame)
        dataset.PerFrameFunctionalGroupsSequence = frames
        change(dataset)
    return dataset

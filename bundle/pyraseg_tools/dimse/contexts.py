# SPDX-License-Identifier: Apache-2.0
"""What is spoken with other nodes: SOP classes, transfer syntaxes, roles, answers. docs/conformance.md is made of it.

The tables are the ones that the program uses, so that the statement cannot tell of anything else.
"""

from dataclasses import dataclass
from enum import IntEnum

from pydicom import uid
from pydicom.uid import UID

#: The classes of services, which pydicom 3.0.2 does not name.
VERIFICATION = UID("1.2.840.10008.1.1")
COMMITMENT, COMMITMENT_INSTANCE = UID("1.2.840.10008.1.20.1"), UID("1.2.840.10008.1.20.1.1")
STUDY_FIND, STUDY_MOVE = UID("1.2.840.10008.5.1.4.1.2.2.1"), UID("1.2.840.10008.5.1.4.1.2.2.2")

#: Images that are taken: those whose pixels the reader decodes.
IMAGES: tuple[UID, ...] = (
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.MRImageStorage,
    uid.EnhancedMRImageStorage,
    uid.LegacyConvertedEnhancedMRImageStorage,
    uid.PositronEmissionTomographyImageStorage,
    uid.EnhancedPETImageStorage,
    uid.LegacyConvertedEnhancedPETImageStorage,
    uid.NuclearMedicineImageStorage,
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForProcessing,
    uid.BreastTomosynthesisImageStorage,
    uid.XRay3DAngiographicImageStorage,
    uid.UltrasoundImageStorage,
    uid.UltrasoundMultiFrameImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    uid.VLPhotographicImageStorage,
    uid.DermoscopicPhotographyImageStorage,
)
#: Those that the reader decodes. Deflated data are not among them: some kilobytes of them would fill the memory.
IMAGE_SYNTAXES: tuple[UID, ...] = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
)
#: Objects that a run may write about a series, and that are sent.
RESULTS: tuple[UID, ...] = (
    uid.SegmentationStorage,
    UID("1.2.840.10008.5.1.4.1.1.66.7"),  # label maps, which pydicom 3.0.2 does not name
    uid.RTStructureSetStorage,
    uid.Comprehensive3DSRStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)
#: In which an object is offered that is not compressed; a compressed one is offered as it is.
RESULT_SYNTAXES: tuple[UID, ...] = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)


@dataclass(frozen=True)
class Spoken:
    """Hold a service, the roles in it, and when it is used."""

    name: str
    sop_class: UID | None
    calls: bool
    answers: bool
    use: str


SPOKEN = (
    Spoken("Verification", VERIFICATION, False, True, "another node asks whether this one answers"),
    Spoken("Storage of images", None, False, True, "a node sends a study, or the archive one that was asked for"),
    Spoken("Storage of results", None, True, False, "results go to the destination"),
    Spoken("Storage Commitment Push Model", COMMITMENT, True, False,
            "the destination is asked to vouch for the results; it may answer in the same association or in one of "
            "its own"),
    Spoken("Study Root Query/Retrieve, FIND", STUDY_FIND, True, False,
            "the series of a study that was named by its UID are listed"),
    Spoken("Study Root Query/Retrieve, MOVE", STUDY_MOVE, True, False,
            "they are sent to this node"),
)  # fmt: skip


class Status(IntEnum):
    """Answer a C-STORE request (PS3.4 B.2.3)."""

    def __new__(cls, value: int, meaning: str) -> "Status":
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    meaning: str

    SUCCESS = 0x0000, "the object lies on the disk, whole"
    NO_ROOM = 0xA700, "the disk or the share of it that images may take is full; it may be sent again later"
    MISMATCH = 0xA900, "the object is another than the request names, or of another class"
    NOT_UNDERSTOOD = 0xC000, "the header cannot be read, or a UID in it is none"

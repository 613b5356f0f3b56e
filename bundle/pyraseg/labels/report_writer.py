# SPDX-License-Identifier: Apache-2.0
"""Write what was measured of segments as a structured report: a Comprehensive 3D SR after TID 1500 (PS3.16 A)."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept, ContentSequence, Measurement, RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.dicom import (
    MAY_BE_EMPTY,
    PATIENT_AND_STUDY,
    series_number,
    state_character_set,
)
from bundle.pyraseg.labels.derived import referable
from bundle.pyraseg.labels.measuring import Measures
from bundle.pyraseg.labels.seg_writer import ANATOMICAL_STRUCTURE, SegmentClass

#: Scheme of the concepts for which no public one has a code.
OWN = "99PYRASEG"
COMPONENTS = Code("COMPONENTS", OWN, "Number of connected components")
UNCERTAINTY = Code("UNCERTAINTY", OWN, "1 - mean Dice with the segmentations of other views")
PIXEL_VALUE = Code("PIXEL_VALUE", OWN, "Rescaled pixel value")
LONGEST_IN_SPACE = Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh")
#: What the values of an image are, and the code of their unit, by the name that `read_series` has for the unit.
QUANTITIES = {
    "HU": (codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit),
    "SUVbw": (codes.DCM.Suvbw, codes.UCUM.StandardizedUptakeValueBodyWeight),
    "BQML": (codes.DCM.NuclearMedicineTomographicActivity, codes.UCUM.BecquerelsPerMilliliter),
    "CNTS": (PIXEL_VALUE, codes.UCUM.Counts),
}
#: What was done, by modality (CID 100).
PROCEDURES = {
    "CT": codes.LN.CTUnspecifiedBodyRegion,
    "MR": codes.LN.MRIUnspecifiedBodyRegion,
    "PT": codes.LN.PETUnspecifiedBodyRegion,
    "NM": codes.LN.NMUnspecifiedBodyRegion,
}
MODALITIES = {
    "CT": codes.DCM.ComputedTomography,
    "MR": codes.DCM.MagneticResonance,
    "PT": codes.DCM.PositronEmissionTomography,
    "NM": codes.DCM.NuclearMedicine,
    "US": codes.DCM.Ultrasound,
    "XA": codes.DCM.XRayAngiography,
}
OTHER = Code("OT", "DCM", "Other Modality")
LATERALITIES = ("7771000", "24028007", "51440002")  # SNOMED CT: left, right, both


#: Measurements of a segment, or of what several have in common.
Group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations | hd.sr.MeasurementsAndQualitativeEvaluations


@dataclass(frozen=True)
class Reported:
    """Hold what a report says about one segment.

    Attributes:
        measures: what was measured.
        uncertainty: how far other views of the image disagree with the segment, 0 to 1; None where nobody looked.
    """

    measures: Measures
    uncertainty: float | None = None


@dataclass(frozen=True)
class ImageValues:
    """Say what the values of an image are.

    Attributes:
        modality: such as "CT".
        units: such as "HU", "SUVbw" or "BQML", see `DicomImage`; of any other one the report says "no units".
    """

    modality: str
    units: str

    @property
    def quantity(self) -> tuple[Code, Code]:
        """Return the concept that the values measure, and their unit (CID 7180, UCUM)."""
        plain = codes.DCM.MRSignalIntensity if self.modality == "MR" else PIXEL_VALUE
        return QUANTITIES.get(self.units, (plain, codes.UCUM.NoUnits))


def write_report(
    path: str | os.PathLike,
    reported: Mapping[int, Reported],
    classes: Sequence[SegmentClass],
    segmentation: Dataset,
    source_images: Sequence[Dataset],
    *,
    values: ImageValues,
    algorithm: tuple[str, str],
) -> None:
    """Write a Comprehensive 3D SR after TID 1500 with a group of measurements (TID 1411) for each segment.

    A group has the segment's codes, refers to the segment and to the series that it was drawn on, and is tracked by the
    identifier and the UID that the segmentation has for it. The volume is the sum of voxels (CID 7474), in mm³; the
    longest diameter in plane is the Long Axis, that in space IBSI's Maximum 3D Diameter. Mean and standard deviation
    are of the rescaled values. The report is complete, preliminary and not verified by anybody. What the sources say
    against the standard does not come into it, see `sound_sources`.

    Args:
        path: file to write; it appears whole or not at all.
        reported: by the numbers of the segments, at least one.
        classes: what the segments 1, 2, ... are.
        segmentation: what `write_segmentation` returned.
        source_images: header of the image of each slice.
        values: what the values of these images are.
        algorithm: name and version of the program that segmented and measured.

    Raises:
        PyrasegError: nothing is reported, or the sources lack UIDs.
    """
    if not reported:
        raise PyrasegError(f"Cannot write {path}: a report has at least one segment. Report those of volume 0, too.")
    groups = [
        segment_group(
            segmentation,
            number,
            classes[number - 1],
            measurements=_measurements(one, values),
            algorithm=algorithm,
        )
        for number, one in sorted(reported.items())
    ]
    save_report(path, groups, [segmentation], source_images, modality=values.modality, algorithm=algorithm)


def save_report(
    path: str | os.PathLike,
    groups: Sequence[Group],
    segmentations: Sequence[Dataset],
    source_images: Sequence[Dataset],
    *,
    modality: str,
    algorithm: tuple[str, str],
) -> None:
    """Write a report with these groups of measurements.

    Args:
        path: file to write; it appears whole or not at all.
        groups: what is reported.
        segmentations: what `write_segmentation` returned of all to which the groups refer.
        source_images: header of each image that was segmented; one may stand several times.
        modality: of the images, such as "CT".
        algorithm: name and version of the program that segmented and measured.

    Raises:
        PyrasegError: the sources lack UIDs.
    """
    images = list({source.SOPInstanceUID: source for source in referable(source_images, path)}.values())
    report = hd.sr.MeasurementReport(
        observation_context=_observer(algorithm),
        procedure_reported=PROCEDURES.get(modality, codes.SCT.ImagingProcedure),
        imaging_measurements=list(groups),
    )
    content = report[0].ContentSequence  # the library stands before the measurements (TID 1500)
    content.insert(len(content) - 1, _image_library(images, modality))
    document = _document(report[0], segmentations, images, algorithm)
    with replacing(Path(path)) as partial:
        document.save_as(partial)


def _document(
    report: Dataset, segmentations: Sequence[Dataset], images: Sequence[Dataset], algorithm: tuple[str, str]
) -> Dataset:
    first = images[0]
    stand_in = Dataset()  # of whose patient highdicom would warn; it is told afterwards
    stand_in.update(segmentations[0])
    for keyword in MAY_BE_EMPTY:
        setattr(stand_in, keyword, "")
    document = hd.sr.Comprehensive3DSR(
        evidence=[stand_in, *segmentations[1:], *images],
        content=report,
        series_instance_uid=generate_uid(),
        series_number=series_number(first, 300),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Pyraseg",
        manufacturer_model_name="Pyraseg",
        software_versions=algorithm[1],
        device_serial_number="1",
        series_description="Measurements",
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(OWN, name="Pyraseg")],
    )
    for keyword in ("SpecificCharacterSet", *PATIENT_AND_STUDY):
        if keyword in first:
            document[keyword] = first[keyword]
    state_character_set(document)
    return document


def _observer(algorithm: tuple[str, str]) -> hd.sr.ObservationContext:
    """Return who observed: this program, in this version."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["device", *algorithm]),
        name=algorithm[0],
        manufacturer_name="Pyraseg",
        model_name="Pyraseg",
    )
    return hd.sr.ObservationContext(hd.sr.ObserverContext(codes.DCM.Device, device))


def segment_group(
    segmentation: Dataset,
    number: int,
    kind: SegmentClass,
    *,
    measurements: Sequence[Measurement],
    algorithm: tuple[str, str],
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return the measurements of one segment of a segmentation, as a group (TID 1411)."""
    series_uid = segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
    segment = segmentation.SegmentSequence[number - 1]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(series_uid),
        ),
        finding_category=kind.category,
        finding_type=kind.type,
        finding_sites=finding_sites(kind),
        algorithm_id=identification(algorithm),
        measurements=measurements,
    )


def volume_of(cubic_millimeters: float) -> Measurement:
    """Return the measurement of a volume that is a sum of voxels (CID 7474)."""
    method = codes.DCM.SumOfSegmentedVoxelMethodForVolume
    return Measurement(codes.SCT.Volume, cubic_millimeters, codes.UCUM.CubicMillimeter, method=method)


def identification(algorithm: tuple[str, str]) -> hd.sr.AlgorithmIdentification:
    """Return the name, version and family of an algorithm, as the segmentation has them."""
    return hd.sr.AlgorithmIdentification(*algorithm, family=codes.DCM.ArtificialIntelligence)


def finding_sites(kind: SegmentClass) -> list[hd.sr.FindingSite] | None:
    """Return where a finding is: its region, or itself where a modifier says which one of an organ it is."""
    if kind.region is None and kind.modifier is None:
        return None
    place = kind.region or kind.type
    if kind.modifier is None or (kind.region is None and kind.category != ANATOMICAL_STRUCTURE):
        return [hd.sr.FindingSite(place)] if kind.region else None
    if kind.modifier.value in LATERALITIES:
        return [hd.sr.FindingSite(place, laterality=kind.modifier)]
    return [hd.sr.FindingSite(place, topographical_modifier=kind.modifier)]


def _measurements(reported: Reported, values: ImageValues) -> list[Measurement]:
    found, (quantity, unit) = reported.measures, values.quantity
    rows: list[tuple[Code, float | None, Code, Code | None]] = [
        (codes.SCT.LongAxis, found.in_plane, codes.UCUM.Millimeter, None),
        (LONGEST_IN_SPACE, found.in_space, codes.UCUM.Millimeter, None),
        (quantity, found.mean, unit, codes.SCT.Mean),
        (quantity, found.deviation, unit, codes.SCT.StandardDeviation),
        (COMPONENTS, found.components, codes.UCUM.NoUnits, None),
        (UNCERTAINTY, reported.uncertainty, codes.UCUM.NoUnits, None),
    ]
    measured = [Measurement(name, value, unit, derivation=how) for name, value, unit, how in rows if value is not None]
    return measured if found.volume is None else [volume_of(found.volume), *measured]


def _image_library(images: Sequence[Dataset], modality: str) -> hd.sr.ContainerContentItem:
    """Return the images that were segmented (TID 1600), by which viewers find them.

    highdicom's own library wants the place of every image at its top level, which multi-frame images do not have.
    """
    acquired, contains = RelationshipTypeValues.HAS_ACQ_CONTEXT, RelationshipTypeValues.CONTAINS
    group = hd.sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=contains)
    frame = images[0].FrameOfReferenceUID
    group.ContentSequence = ContentSequence(
        [
            hd.sr.CodeContentItem(codes.DCM.Modality, MODALITIES.get(modality, OTHER), relationship_type=acquired),
            hd.sr.UIDRefContentItem(codes.DCM.FrameOfReferenceUID, frame, relationship_type=acquired),
            *(
                hd.sr.ImageContentItem(
                    CodedConcept("260753009", "SCT", "Source"),
                    referenced_sop_class_uid=image.SOPClassUID,
                    referenced_sop_instance_uid=image.SOPInstanceUID,
                    relationship_type=contains,
                )
                for image in images
            ),
        ]
    )
    library = hd.sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=contains)
    library.ContentSequence = ContentSequence([group])
    return library

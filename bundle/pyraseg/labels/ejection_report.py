# SPDX-License-Identifier: Apache-2.0
"""Write what a heart beat ejects as a structured report after TID 1500."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
from highdicom.sr import ContentSequence, Measurement, RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from bundle.pyraseg.labels.report_writer import finding_sites, identification, save_report, segment_group, volume_of
from bundle.pyraseg.labels.seg_writer import SegmentClass

PHASE_OF_CYCLE = Code("246092007", "SCT", "Cardiac cycle phase")
END_DIASTOLE, END_SYSTOLE = codes.SCT.EndDiastole, codes.SCT.EndSystole


@dataclass(frozen=True, eq=False)
class SegmentedPhase:
    """Hold the cavity in one phase of a heart beat.

    Attributes:
        volume: mm³.
        segmentation: what `write_segmentation` returned.
        source_images: header of the image of each slice.
    """

    volume: float
    segmentation: Dataset
    source_images: Sequence[Dataset]


def write_ejection_report(
    path: str | os.PathLike,
    diastole: SegmentedPhase,
    systole: SegmentedPhase,
    kind: SegmentClass,
    *,
    number: int,
    modality: str,
    algorithm: tuple[str, str],
) -> None:
    """Write the ejection fraction of a cavity of the heart, and the two volumes that it was inferred from.

    Each volume is in a group of the segment of its phase (TID 1411). The ejection fraction, in percent, and the stroke
    volume are in a group of their own (TID 1501), inferred from both volumes by value (TID 300).

    Args:
        path: file to write; it appears whole or not at all.
        diastole, systole: the phases of the largest and of the smallest volume; that of the first is above 0.
        kind: what the cavity is.
        number: of its segment in both.
        modality: of the images, such as "MR".
        algorithm: name and version of the program that segmented and measured.

    Raises:
        PyrasegError: the sources lack UIDs.
    """
    beat = ((diastole, END_DIASTOLE), (systole, END_SYSTOLE))
    volumes = [
        segment_group(
            phase.segmentation, number, kind, measurements=[_volume_at(phase.volume, moment)], algorithm=algorithm
        )
        for phase, moment in beat
    ]
    stroke = diastole.volume - systole.volume
    fraction = Measurement(codes.SCT.CardiacEjectionFraction, 100 * stroke / diastole.volume, codes.UCUM.Percent)
    ejected = Measurement(codes.SCT.StrokeVolume, stroke, codes.UCUM.CubicMillimeter)
    for measurement in (fraction, ejected):
        measurement[0].ContentSequence = ContentSequence()
        for phase, moment in beat:
            volume = _volume_at(phase.volume, moment)
            volume[0].RelationshipType = RelationshipTypeValues.INFERRED_FROM.value
            measurement[0].ContentSequence.extend(volume)
    ejection = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=generate_uid(), identifier=f"ejection fraction, {kind.label}"),
        finding_category=kind.category,
        finding_type=kind.type,
        finding_sites=finding_sites(kind),
        algorithm_id=identification(algorithm),
        measurements=[fraction, ejected],
    )
    save_report(
        path,
        [*volumes, ejection],
        [phase.segmentation for phase, _ in beat],
        [*diastole.source_images, *systole.source_images],
        modality=modality,
        algorithm=algorithm,
    )


def _volume_at(volume: float, moment: Code) -> Measurement:
    """Return the measurement of a volume at a moment of the heart beat."""
    measurement = volume_of(volume)
    when = hd.sr.CodeContentItem(PHASE_OF_CYCLE, moment, relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD)
    measurement[0].ContentSequence.append(when)
    return measurement

# SPDX-License-Identifier: Apache-2.0
"""Structured reports of what was measured: of the segments of each input, and of what a heart beat ejects."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from bundle.pyraseg.dicom import Geometry
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.inference.writers.dicom_objects import SegmentationWriter, path_of
from bundle.pyraseg.inference.writers.ejection import Phases
from bundle.pyraseg.labels import (
    ImageValues,
    Reported,
    SegmentedPhase,
    measure,
    write_ejection_report,
    write_report,
)


class ReportWriter:
    """Write `<name>_sr.dcm`, a structured report of what was measured of each segment, see `labels.write_report`.

    It refers to the segmentation of the same run, which is written with it. Only what was found is reported; if nothing
    was, each class is, with a volume of 0. Inputs that are not DICOM, or have no patient position, get none.

    Args:
        segmentation: what writes the segmentation.
        ejection_fraction: name of a cavity of the heart: of each series of which two phases or more were segmented,
            `<name>_ejection_fraction.dcm` is written as well, see `labels.write_ejection_report`; None for none.

    Raises:
        PyrasegError: there is no class, or region, of that name.
    """

    def __init__(self, *, segmentation: SegmentationWriter, ejection_fraction: str | None = None) -> None:
        self.segmentation = segmentation
        self.phases: Phases[SegmentedPhase] | None = None
        if ejection_fraction is not None:
            structures = segmentation.structures
            self.phases = Phases(ejection_fraction, structures.names, overlapping=structures.overlapping)

    def __call__(self, prediction: Prediction) -> list[Path] | None:
        writer, geometry = self.segmentation, prediction.geometry
        sources = writer.sources(prediction) if geometry is not None else None
        written = writer.written(prediction) if sources is not None else None
        if geometry is None or sources is None or written is None:
            return None
        path, meta = path_of(prediction, "sr"), prediction.original.meta
        values = ImageValues(str(meta.get("modality", "")), str(meta.get("units", "")))
        algorithm = writer.algorithm.name, writer.algorithm.version
        reported = self._reported(prediction, geometry)
        write_report(path, reported, writer.classes, written, sources, values=values, algorithm=algorithm)
        return [path, *self._beat(prediction, written, sources, values.modality)]

    def _reported(self, prediction: Prediction, geometry: Geometry) -> dict[int, Reported]:
        """Return what is said of each segment, by its number."""
        values = np.asarray(prediction.original[0]).T  # of several sequences those of the first
        uncertainty = prediction.uncertainty
        found = {}
        for number in range(1, len(self.segmentation.classes) + 1):
            mask = self.segmentation.structures.mask(prediction.slices, number)
            unsure = None if uncertainty is None else uncertainty[number - 1]
            found[number] = Reported(measure(mask, values, geometry), unsure)
        return {number: one for number, one in found.items() if one.measures.components} or found

    def _beat(self, prediction: Prediction, written: Dataset, sources: list[Dataset], modality: str) -> list[Path]:
        """Take a phase of a heart beat; return the report of what the beat ejects, as far as it is known."""
        writer, phases, volumes = self.segmentation, self.phases, prediction.volumes
        if phases is None or volumes is None:
            return []
        phase = SegmentedPhase(float(volumes[phases.values].sum()), written, sources)
        key = phases.take(prediction, phase)
        found = phases.beat(key) if key is not None else None
        if key is None or found is None or found[0].fraction is None:
            return []
        beat, _, kept = found
        path = prediction.stem.with_name(f"{Path(key[0]).name}_ejection_fraction.dcm")
        write_ejection_report(
            path,
            kept[beat.diastole],
            kept[beat.systole],
            writer.classes[phases.number - 1],
            number=phases.number,
            modality=modality,
            algorithm=(writer.algorithm.name, writer.algorithm.version),
        )
        return [path]

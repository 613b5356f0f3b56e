# SPDX-License-Identifier: Apache-2.0
"""Pictures of what was found as a DICOM secondary capture, for viewers that show no segmentations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.pyraseg.core import Structures, values_of
from bundle.pyraseg.figures import at_window, draw_captures, slices_to_capture
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.inference.writers.dicom_objects import Algorithm, SourceImages
from bundle.pyraseg.labels import write_capture


class CaptureWriter:
    """Write `<name>_capture.dcm`: the slices that matter with the outlines of what was found, and a legend.

    The legend has names and volumes, in ml or, where they are unknown, in pixels; "not for diagnosis" is drawn into
    each picture, and nothing about the patient. Inputs that are not DICOM get none.

    Args:
        class_names: names of all classes, background first.
        windows: as for `Windowd`, the first of which shows the images; None for photographs.
        algorithm: what segmented.
        sources: finds the images that are referred to.
        regions: the classes of each region where these are predicted, see `core.Structures`.
        slices: how many slices at most, see `slices_to_capture`.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        windows: Sequence[Any] | None,
        algorithm: Algorithm,
        sources: SourceImages,
        regions: Mapping[str, Sequence[str]] | None = None,
        slices: int = 16,
    ) -> None:
        self.structures = Structures(class_names, regions)
        self.windows = windows
        self.algorithm = algorithm
        self.sources = sources
        self.slices = slices

    def __call__(self, prediction: Prediction) -> list[Path] | None:
        sources = self.sources(prediction)
        if sources is None:
            return None
        names, overlapping = self.structures.names[1:], self.structures.overlapping
        values = [values_of(number, len(names), overlapping=overlapping) for number in range(1, len(names) + 1)]
        areas = np.stack([prediction.voxels[:, one].sum(axis=1) for one in values], axis=1)
        chosen = slices_to_capture(areas, self.slices)
        images, original = _pictures(prediction, self.windows, chosen), prediction.original
        height, width = images.shape[1:3]
        spacing = (1.0, 1.0) if prediction.geometry is None else prediction.geometry.pixel_spacing
        count, (name, version) = len(prediction.slices), (self.algorithm.name, self.algorithm.version)
        pictures, size = draw_captures(
            images,
            prediction.slices[chosen],
            [f"{name} {_amount(prediction, one)}" for name, one in zip(names, values, strict=True)],
            size=(width * spacing[1], height * spacing[0]),
            captions=[f"{name} {version}, {'slice ' if original.ndim == 4 else ''}{k + 1}/{count}" for k in chosen],
            overlapping=overlapping,
        )
        path = prediction.stem.with_name(f"{prediction.stem.name}_capture.dcm")
        numbers = prediction.source_frames or [1] * count
        write_capture(
            path,
            pictures,
            [sources[k] for k in chosen],
            frame_numbers=[numbers[k] for k in chosen],
            image_size=size,
            algorithm=(name, version),
        )
        return [path]


def _pictures(prediction: Prediction, windows: Sequence[Any] | None, chosen: Sequence[int]) -> np.ndarray:
    """Return slices of the input as RGB bytes, in the rows and columns of their files, (N, H, W, 3)."""
    original = prediction.original
    shown = np.asarray(at_window(original, windows, slices=chosen if original.ndim == 4 else None))
    found = shown.T if shown.ndim == 4 else shown.T[None]
    if found.dtype != np.uint8:
        found = np.clip(np.nan_to_num(found), 0, 255).astype(np.uint8)
    return np.repeat(found, 3, axis=3) if found.shape[3] == 1 else np.ascontiguousarray(found[..., :3])


def _amount(prediction: Prediction, values: Sequence[int]) -> str:
    """Return in words how much of a structure there is."""
    if prediction.volumes is None:
        return f"{prediction.voxels[:, values].sum()} pixels"
    return f"{prediction.volumes[values].sum() / 1000:.1f} ml"

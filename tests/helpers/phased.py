# SPDX-License-Identifier: Apache-2.0
"""Small series that hold several phases, whose voxel values tell the phase."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.uid import MRImageStorage

from tests.helpers.dicom_files import PATIENT, item, uid, write_enhanced, write_series

#: Phases, places, rows, columns of the images.
SHAPE = (4, 3, 12, 10)
STEP = 5.0


def values(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return stored values (phases, places, rows, columns): 100 times the phase, from 1, and noise below 50."""
    noise = np.random.default_rng(7).integers(0, 50, shape)
    return (noise + 100 * np.arange(1, shape[0] + 1)[:, None, None, None]).astype(np.int16)


def write_phases(
    folder: Path,
    of: Callable[[int, int], dict[str, object]],
    *,
    pixels: np.ndarray | None = None,
    left_out: tuple[tuple[int, int], ...] = (),
    name: str = "case",
    **others: object,
) -> dict[tuple[int, int], Path]:
    """Write a series of single images, and return its files by phase and place, both from 0.

    The images are numbered, and their files called, in an order that is of no phase.

    Args:
        folder: where to.
        of: attributes of a phase and place.
        pixels: stored values, see `values`.
        left_out: phases and places without an image.
        name: of the patient, the study and the series.
        others: attributes of all.
    """
    pixels = values() if pixels is None else pixels
    keys = [(phase, place) for phase in range(len(pixels)) for place in range(pixels.shape[1])]
    keys = [key for key in np.random.default_rng(1).permutation(keys).tolist() if tuple(key) not in left_out]
    common = {
        **PATIENT, "Modality": "MR", "SOPClassUID": MRImageStorage, "SliceThickness": STEP, "PatientID": name,
        "StudyInstanceUID": uid(name, "study"), "SeriesInstanceUID": uid(name), "FrameOfReferenceUID": uid(name, "f"),
        **others,
    }  # fmt: skip
    files = write_series(
        folder,
        np.stack([pixels[phase, place] for phase, place in keys]),
        names=[f"{number:03d}.dcm" for number in range(len(keys))],
        per_slice=lambda k: {"ImagePositionPatient": [0.0, 0.0, STEP * keys[k][1]], **of(*keys[k])},
        **common,
    )
    return {(phase, place): file for (phase, place), file in zip(keys, files, strict=True)}


def trigger_times(phase: int, place: int) -> dict[str, object]:
    """Return those of a cine in which every place has a heart rate of its own."""
    return {"TriggerTime": round((20 + 190 * phase) * (1 + 0.04 * place), 4)}


def write_enhanced_cine(path: Path, pixels: np.ndarray | None = None, *, name: str = "case") -> Path:
    """Write an enhanced object of all phases, frames of a place one after the other, the last phase first."""
    pixels = values() if pixels is None else pixels
    phases, places = pixels.shape[:2]
    keys = [(phase, place) for place in range(places) for phase in reversed(range(phases))]
    return write_enhanced(
        path,
        np.stack([pixels[key] for key in keys]),
        np.array([(0, 0, STEP * place) for _, place in keys]),
        shared={"PixelValueTransformationSequence": item(RescaleSlope=1, RescaleIntercept=0, RescaleType="US")},
        per_frame=lambda k: {
            "CardiacSynchronizationSequence": item(
                NominalCardiacTriggerDelayTime=(10.0 + 190 * keys[k][0]) * (1 + 0.04 * keys[k][1])
            )
        },
        **{**PATIENT, "Modality": "MR", "PatientID": name, "SeriesInstanceUID": uid(name)},
        **{"StudyInstanceUID": uid(name, "study"), "FrameOfReferenceUID": uid(name, "f"), "SOPInstanceUID": uid(path)},
        InstanceNumber=1,
    )

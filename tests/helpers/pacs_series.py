# SPDX-License-Identifier: Apache-2.0
"""Small series for a PACS."""

from pathlib import Path

import numpy as np

from tests.helpers import dicom_files as files


def small_series(folder: Path, name: str, *, slices: int = 3, seed: int = 0, **others: object) -> list[Path]:
    """Write a series in a study of its own; other seeds give other pixels."""
    pixels = np.random.default_rng(seed).integers(-200, 300, (slices, 20, 24)).astype(np.int16)
    uids = {"StudyInstanceUID": files.uid("study", name), "SeriesInstanceUID": files.uid("series", name)}
    return files.write_series(folder / name, pixels, SliceThickness=1, **{**uids, **others})

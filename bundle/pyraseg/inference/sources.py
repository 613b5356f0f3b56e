# SPDX-License-Identifier: Apache-2.0
"""The DICOM images behind a prediction, which a segmentation or structure set made from it refers to."""

import logging
import shutil
from pathlib import Path

from pydicom.dataset import Dataset

from bundle.pyraseg.dicom.source import complete, missing_attributes, read_sources
from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.files import replacing
from bundle.pyraseg.inference.prediction import Prediction

logger = logging.getLogger(__name__)


class SourceImages:
    """Return the headers of a prediction's images, once for all writers.

    Args:
        complete_headers: where images lack the UIDs that a reference is made of, write a copy of the series with
            generated ones as `<name>_series/` and return that; without it they are refused.
    """

    def __init__(self, *, complete_headers: bool) -> None:
        self.complete_headers = complete_headers
        self._last: tuple[Prediction, list[Dataset]] | None = None

    def __call__(self, prediction: Prediction) -> list[Dataset] | None:
        """Return one dataset for each slice, or one multi-frame dataset; None where the input is not DICOM.

        Raises:
            PyrasegError: headers are incomplete, or the slices come from several multi-frame files.
        """
        if not prediction.source_files:
            return None
        if self._last is None or self._last[0] is not prediction:
            self._last = prediction, self._find(prediction)
        return self._last[1]

    def _find(self, prediction: Prediction) -> list[Dataset]:
        files, placed = prediction.source_files, prediction.geometry is not None
        sources = read_sources(files)
        missing = missing_attributes(sources, placed=placed)
        if not missing:
            return sources
        copy = prediction.stem.with_name(f"{prediction.stem.name}_series")
        if not self.complete_headers:
            raise PyrasegError(
                f"no DICOM object can refer to its images, for they have no {', '.join(missing)}. With "
                f"--complete_headers true a copy of the series with generated UIDs is written to {_place(copy)} and "
                "referred to. The original stays as it is: store the copy beside the result."
            )
        shutil.rmtree(copy, ignore_errors=True)  # of a run before; the same files come again
        with replacing(copy) as temporary:
            temporary.mkdir()
            sources = complete(files, temporary, placed=placed)
        logger.warning("%s: no %s; a copy of the series with generated UIDs is in %s",
                       prediction.name, ", ".join(missing), _place(copy))  # fmt: skip
        return sources


def _place(folder: Path) -> str:
    return f"{folder.name}/"

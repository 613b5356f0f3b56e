# SPDX-License-Identifier: Apache-2.0
"""The DICOM images behind a prediction, which a segmentation or structure set made from it refers to."""

import logging
import shutil
import weakref
from collections.abc import Callable

from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.dicom import complete, frame_planes, missing_attributes, read_sources
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
        self._last: Callable[[], Prediction | None] = lambda: None  # a weak one, or its volume would stay
        self._found: list[Dataset] = []

    def __call__(self, prediction: Prediction) -> list[Dataset] | None:
        """Return one dataset for each slice, or one multi-frame dataset; None where the input is not DICOM.

        Raises:
            PyrasegError: headers are incomplete, or the slices come from several multi-frame files.
        """
        if not prediction.source_files:
            return None
        if self._last() is not prediction:
            self._found, self._last = self._find(prediction), weakref.ref(prediction)
        return self._found

    def _find(self, prediction: Prediction) -> list[Dataset]:
        files = prediction.source_files
        sources = read_sources(files)
        placed = frame_planes(sources[0])[0] is not None
        missing = missing_attributes(sources, placed=placed)
        if not missing:
            return sources
        copy = prediction.stem.with_name(f"{prediction.stem.name}_series")
        if not self.complete_headers:
            raise PyrasegError(
                f"its images have no {', '.join(missing)} to be referred to by. With --complete_headers true a copy of "
                f"the series with generated UIDs is written to {copy.name}/ and referred to; store it with the result."
            )
        shutil.rmtree(copy, ignore_errors=True)  # of a run before; the same files come again
        with replacing(copy) as temporary:
            temporary.mkdir()
            sources = complete(files, temporary, placed=placed)
        logger.warning("%s: no %s; a copy of the series with generated UIDs is in %s",
                       prediction.name, ", ".join(missing), f"{copy.name}/")  # fmt: skip
        return sources

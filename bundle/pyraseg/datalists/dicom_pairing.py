# SPDX-License-Identifier: Apache-2.0
"""Which DICOM series a SEG or RTSTRUCT object was drawn on, by what the object refers to."""

import logging
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import Scan, Series
from bundle.pyraseg.labels import ImageUids, images_of, read_references

logger = logging.getLogger(__name__)


def pair_dicom(folder: Path, scan: Scan) -> list[dict[str, Any]]:
    """Pair every image series of a scanned folder with the one SEG or RTSTRUCT object that refers to it.

    Which one that is, `labels.images_of` says. An image is given as its folder, or as its file if it is a single one.

    Raises:
        PyrasegError: no series has a label; a series has two, or an object two series; or a series shares its folder
            with another one, so that no path stands for it alone.
    """
    labels: dict[str, list[Path]] = {}
    homeless = []
    images = [ImageUids.of_images(series.headers) for series in scan.series]
    for path in scan.label_objects:
        found = images_of(read_references(path), images)
        if len(found) > 1:
            raise PyrasegError(
                f"{path} refers to {len(found)} of the series that are there. Keep the one it was drawn on."
            )
        if found:
            labels.setdefault(scan.series[found[0]].uid, []).append(path)
        else:
            homeless.append(path)
    if homeless:
        logger.warning(
            "%d SEG or RTSTRUCT objects refer to no series that is there, such as %s", len(homeless), homeless[0]
        )
    if not labels:
        raise PyrasegError(
            f"{folder} has {len(scan.series)} image series, but none with a label: {len(homeless)} SEG or RTSTRUCT "
            "objects were found, and none refers to one of these series. Put images into images/ and labels into "
            "labels/ under the same names, or give patterns."
        )
    unlabeled = len(scan.series) - len(labels)
    if unlabeled:
        logger.warning("%d of %d series in %s have no label and are left out", unlabeled, len(scan.series), folder)
    items = []
    for series in scan.series:
        if series.uid in labels:
            image, found = _path_of(series, scan), labels[series.uid]
            if len(found) > 1:
                names = ", ".join(str(path) for path in found)
                raise PyrasegError(f"The series in {image} has {len(found)} labels: {names}. Move all but one away.")
            case = image.relative_to(folder).as_posix() if image != folder else image.name
            items.append({"image": str(image), "label": str(found[0]), "patient": case})
    return sorted(items, key=lambda item: item["patient"])


def _path_of(series: Series, scan: Scan) -> Path:
    """Return the path that stands for a series alone: its file, or its folder."""
    if len(series.files) == 1:
        return series.files[0]
    folders = {path.parent for path in series.files}
    folder = next(iter(folders))
    others = [other for other in scan.series if other is not series and any(folder in p.parents for p in other.files)]
    if len(folders) > 1 or others:
        raise PyrasegError(
            f"The series of {series.files[0]} {'lies in several folders' if len(folders) > 1 else 'shares its folder'}"
            f"{'' if len(folders) > 1 else f' with {len(others)} other series'}: a data list needs one folder for each "
            "series. Sort the files into folders by Series Instance UID."
        )
    return folder

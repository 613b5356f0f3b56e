# SPDX-License-Identifier: Apache-2.0
"""The results that a person has seen of an image: what a model proposed to a client, or stored in the archive."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bundle.pyraseg.core import replacing, without_suffix, write_json
from bundle.pyraseg.dicom import DicomImage
from bundle.pyraseg.labels import ImageGrid, open_label, read_dicom_label
from bundle.pyraseg_tools.monai_label.classes import Task, as_classes
from bundle.pyraseg_tools.monai_label.series_files import on_image
from bundle.pyraseg_tools.pacs import RemoteLabel
from bundle.pyraseg_tools.review import Algorithm, Result, Review, are_equal, compare_labels, decide, read_result


@dataclass(frozen=True, eq=False)
class Seen:
    """Hold a result that a person has seen.

    Attributes:
        result: which one.
        classes: of the task, (N, rows, columns) uint8 on the slices of the image.
        class_names: background first.
    """

    result: Result
    classes: np.ndarray
    class_names: Sequence[str]

    def corrected(self, mask: np.ndarray, label: str, image: DicomImage, reviewer: str) -> Review:
        """Return what a person decided by submitting a label: accepted, where it is equal, else amended.

        Args:
            mask: classes of the label, as of the result.
            label: SOP Instance UID under which it is stored.
            image: of both.
            reviewer: who submitted it.
        """
        dice = compare_labels(self.classes, mask, self.class_names)
        decision = "accepted" if are_equal(dice) else "amended"
        return decide(decision, self.result, header_of(image), reviewer, correction=label, dice=dice)


def header_of(image: DicomImage) -> Dataset:
    """Return the header of the first slice of an image."""
    return pydicom.dcmread(image.files[0], force=True, stop_before_pixels=True)


def keep_proposal(folder: Path, file: Path, model: str, algorithm: Algorithm, stored: Sequence[str] = ()) -> None:
    """Keep a proposal in the folder of its image, in the place of the one before.

    Args:
        folder: of the image alone; made where it is absent.
        file: label map that an inference wrote on the grid that clients have, which is copied. Its values are the
            classes of the bundle.
        model: the bundle.
        algorithm: name and version of what segmented, with the weights that did.
        stored: SOP and Series Instance UID where it is stored as a DICOM SEG as well, else nothing.
    """
    name = f"label_{uuid.uuid4().hex}{file.name.removeprefix(without_suffix(file.name)) or file.suffix}"
    with replacing(folder / name) as temporary:
        shutil.copyfile(file, temporary)
    told = {"file": name, "model": model, "algorithm": [algorithm.name, algorithm.version], "stored": list(stored)}
    write_json(folder / "proposal.json", told)  # from here on the new one counts
    for other in folder.glob("label_*"):
        if other.name != name:
            other.unlink()


def seen(folder: Path, image: DicomImage, task: Task) -> Seen | None:
    """Return the proposal of a task that is kept in the folder of an image, or None.

    One that is not stored gets a UID that follows from the image, the weights and the classes: asked again, the same
    model proposes the same result, of which there is one state.
    """
    path = folder / "proposal.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if told.get("model") != task.name:
        return None
    values = on_image(folder / told["file"], image)
    classes = as_classes(values, {int(value): int(value) for value in np.unique(values)})
    algorithm = Algorithm(*told["algorithm"])
    made_of = [image.series_uid, algorithm.version, hashlib.sha256(classes.tobytes()).hexdigest()]
    uid, series_uid = told["stored"] or (generate_uid(entropy_srcs=made_of), "")
    return Seen(Result(str(uid), series_uid, algorithm), classes, task.table.class_names)


def seen_in_archive(
    labels: Iterable[RemoteLabel], fetch: Callable[[RemoteLabel], Path], image: DicomImage, task: Task
) -> Seen | None:
    """Return the newest segmentation that a program alone made of an image, if its segments are classes of a task.

    Args:
        labels: of the image, the newest first.
        fetch: returns the file of one.
        image: as it is read.
        task: its classes.
    """
    for label in labels:
        if label.automatic:
            path = fetch(label)
            result, header = read_result(path)
            classes = [task.table.index_of(region) for region in open_label(path).regions.values()]
            if None not in classes and header.get("SegmentsOverlap") != "YES":
                found = read_dicom_label(path, ImageGrid.of(image), task.table)
                return Seen(result, found, task.table.class_names)
    return None

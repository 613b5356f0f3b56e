# SPDX-License-Identifier: Apache-2.0
"""DICOM series as the images that MONAI Label serves, and DICOM Segmentations as their labels."""

import json
import logging
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from filelock import FileLock
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from bundle.pyraseg.core import DiskError, PyrasegError, replacing, without_suffix, write_json
from bundle.pyraseg.datalists import Identity, group_patients
from bundle.pyraseg.dicom import DicomImage, read_series, read_sources
from bundle.pyraseg.labels import open_label, write_segmentation
from bundle.pyraseg_tools.monai_label.archives import Archive
from bundle.pyraseg_tools.monai_label.classes import Task, as_classes, meant
from bundle.pyraseg_tools.monai_label.proposals import Seen, header_of, keep_proposal, seen, seen_in_archive
from bundle.pyraseg_tools.monai_label.series_files import SERIES, dicom_of, names_in, on_image, write_for_clients
from bundle.pyraseg_tools.pacs import PacsError, RemoteLabel, RemoteSeries, labels_by_series, require_same
from bundle.pyraseg_tools.review import Algorithm, Review, ReviewLog, decide, require_no_patient

logger = logging.getLogger(__name__)

#: Seconds for which what the archive lists is remembered.
EXPIRY = 30
#: What a UID is made of (PS3.5 9.1), and a name of a file may be.
UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class DicomDatastore(Datastore):
    """Fetch series when they are asked for, and store final labels beside them.

    An image is a series, by its UID. Clients get it as NIfTI (a photograph as PNG), our bundles read its DICOM files. A
    label of the tag "final" is a DICOM SEG in the archive with the names and codes of its bundle: SEMIAUTOMATIC where
    a client submits it, AUTOMATIC where an inference is stored as it is. Segmentations that a program made alone are no
    labels: nobody has looked at them. Other tags stay on this machine. What becomes of a result is added to the
    reviews: of the last proposal to a client, else of the newest automatic segmentation in the archive.

    Args:
        archive: where the series and the labels are.
        tasks: the bundles that are served.
        folder: for images at work, labels and scores; nobody else can read it.
        reviews: what people decided about results.

    Raises:
        PyrasegError: a bundle has no code for a class, which a DICOM SEG needs.
    """

    def __init__(self, archive: Archive, tasks: Sequence[Task], folder: Path, *, reviews: ReviewLog) -> None:
        self.archive = archive
        self.reviews = reviews
        self.tasks = [task for task in tasks if task.segments]  # which says what lacks a code before anybody labels
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._series: dict[str, RemoteSeries] = {}
        self._labels: list[RemoteLabel] = []
        self._labels_by_image: dict[str, list[RemoteLabel]] = {}
        self._unusable: set[RemoteSeries] = set()
        self._looked = -float("inf")
        self._lock = threading.RLock()
        self._files = FileLock(folder / ".lock")  # trainings and scorings are processes of their own

    def name(self) -> str:
        return self.archive.name

    def description(self) -> str:
        return "DICOM series, and segmentations of them"

    def refresh(self) -> None:
        """Look again at once."""
        self._looked = -float("inf")
        self._look()

    def _look(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked < EXPIRY:
                return
            found = self.archive.series()
            self._series = {one.uid: one for one in found if UID.fullmatch(one.uid) and one not in self._unusable}
            labels = [label for label in self.archive.labels() if UID.fullmatch(label.uid)]
            self._labels = sorted(labels, key=lambda label: (label.written, label.uid), reverse=True)
            # All that were found count, of which some cannot be used: a label of such a one belongs to no other
            self._labels_by_image = labels_by_series(found, self._labels, others=self.archive.others)
            self._looked = time.monotonic()

    def _listed(self, image_id: str) -> RemoteSeries:
        self._look()
        if image_id not in self._series:
            raise PyrasegError(f"There is no series {image_id!r} among the {len(self._series)} of {self.name()}.")
        return self._series[image_id]

    def _labels_of(self, image_id: str) -> list[RemoteLabel]:
        """Return what people have labeled in a series, the newest first."""
        self._look()
        return [label for label in self._labels_by_image.get(image_id, ()) if not label.automatic]

    def list_images(self) -> list[str]:
        self._look()
        return list(self._series)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return [uid for uid in self.list_images() if self._labels_of(uid)]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return [uid for uid in self.list_images() if not self._labels_of(uid)]

    def status(self) -> dict[str, Any]:
        labeled = len(self.get_labeled_images())
        return {
            "total": len(self._series),
            "completed": labeled,
            "label_tags": {DefaultLabelTag.FINAL.value: labeled},
        }

    def json(self) -> dict[str, Any]:
        return {"name": self.name(), "objects": {uid: self.get_labels_by_image_id(uid) for uid in self.list_images()}}

    def get_image_uri(self, image_id: str) -> str:
        """Return the file of an image for clients, fetched where it is not here; see `dicom_of`."""
        series = self._listed(image_id)
        folder, stem = self.folder / image_id / f"{image_id}{SERIES}", self.folder / image_id / image_id
        files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".nii.gz", ".png")]
        with self._files:
            here = sum(file.is_file() for file in folder.glob("*.dcm"))  # a link may lead nowhere
            if here != series.instances:  # it is new, has grown, or lies elsewhere now
                with replacing(folder) as temporary:
                    temporary.mkdir(mode=0o700)
                    self.archive.fetch(series, temporary)
                    shutil.rmtree(folder, ignore_errors=True)
                    for file in files:
                        file.unlink(missing_ok=True)
                    shutil.rmtree(self._proposal_in(image_id), ignore_errors=True)  # it is of other images
            for file in files:
                if file.is_file():
                    return str(file)
            try:
                return str(write_for_clients(read_series(folder), stem))
            except DiskError:  # no fault of the series
                raise
            except PyrasegError:  # it is not handed out again, unless its images change
                self._unusable.add(series)
                self._series.pop(image_id, None)
                raise

    def get_image(self, image_id: str, params: Any = None) -> bytes:
        return Path(self.get_image_uri(image_id)).read_bytes()

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        series = self._listed(image_id)
        stated = {"SeriesInstanceUID": series.uid, "StudyInstanceUID": series.study_uid, "Modality": series.modality}
        return {**stated, **self._scores().get(image_id, {})}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self._listed(image_id)
        with self._files:
            scores = self._scores()
            scores[image_id] = {**scores.get(image_id, {}), **info}
            write_json(self.folder / "scores.json", scores)

    def _scores(self) -> dict[str, dict[str, Any]]:
        path = self.folder / "scores.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a final label in the archive and read it back, or keep another one here; return its id.

        Raises:
            PyrasegError: it does not lie on the image, or the meaning of its values is unknown.
        """
        if label_tag != DefaultLabelTag.FINAL:
            suffix = label_filename.removeprefix(without_suffix(label_filename)) or Path(label_filename).suffix
            folder = self._kept_in(image_id, label_tag)
            self.remove_label(image_id, label_tag)
            with replacing(folder / f"label{suffix}") as temporary:
                shutil.copyfile(label_filename, temporary)
            return image_id
        image = read_series(dicom_of(self.get_image_uri(image_id)))
        values = on_image(Path(label_filename), image)
        names = label_info.get("label_info") or names_in(Path(label_filename))
        task, classes = meant(self.tasks, np.unique(values), {**label_info, "label_info": names})
        mask = as_classes(values, classes)
        if "params" in label_info:  # MONAI Label sends them with an inference, and our bundles say there what segmented
            told = label_info["params"].get("algorithm") or (str(label_info.get("model")), "not stated")
            return self._store(image, mask, task, Algorithm(*told), "AUTOMATIC")
        reviewer = require_no_patient(label_info["reviewer"], header_of(image))  # before anything is stored
        started = self._result(image_id, image, task)
        algorithm = started.result.algorithm if started else Algorithm(task.algorithm.name, task.algorithm.version)
        label = self._store(image, mask, task, algorithm, "SEMIAUTOMATIC")
        if started:
            self.reviews.add(started.corrected(mask, label, image, reviewer))
        return label

    def _store(self, image: DicomImage, mask: np.ndarray, task: Task, algorithm: Algorithm, kind: str) -> str:
        """Store a segmentation in the archive, read it back, and return its SOP Instance UID."""
        with tempfile.TemporaryDirectory() as name:
            sent, returned = Path(name) / "sent.dcm", Path(name) / "returned.dcm"
            sources = read_sources([Path(file) for file in image.files])
            write_segmentation(
                sent,
                mask,
                sources,
                task.segments,
                frame_numbers=image.frame_numbers,
                algorithm=(algorithm.name, algorithm.version),
                algorithm_type=kind,
            )
            label = pydicom.dcmread(sent)
            self.archive.store(label)
            self.refresh()
            self.archive.fetch_label(self._stored(str(label.SOPInstanceUID)), returned)
            require_same(returned, sent)
        return str(label.SOPInstanceUID)

    def keep_proposal(self, image_id: str, file: Path, model: str, algorithm: Algorithm, label: str = "") -> None:
        """Keep what an inference returned for an image: what a person submits, or decides, is about it.

        Args:
            image_id: the image.
            file: that was returned.
            model: the bundle.
            algorithm: that segmented.
            label: SOP Instance UID where the result was stored as a final label, or "".
        """
        stored = (label, self._stored(label).series_uid) if label else ()
        with self._files:
            keep_proposal(self._proposal_in(image_id), file, model, algorithm, stored)

    def _proposal_in(self, image_id: str) -> Path:
        return self.folder / self._listed(image_id).uid / "proposal"

    def _result(self, image_id: str, image: DicomImage, task: Task) -> Seen | None:
        with self._files:
            return seen(self._proposal_in(image_id), image, task) or seen_in_archive(
                self._labels_by_image.get(image_id, ()), self._fetched, image, task
            )

    def review(self, image_id: str, decision: str, reviewer: str, model: str | None = None) -> Review:
        """Store that a person accepts or rejects the result of an image as it is.

        Raises:
            PyrasegError: there is no result, or it is unknown of which model.
        """
        image = read_series(dicom_of(self.get_image_uri(image_id)))
        tasks = [task for task in self.tasks if model in (None, task.name)]
        found = [started for task in tasks if (started := self._result(image_id, image, task))]
        if len(found) != 1:
            raise PyrasegError(
                f"There are {len(found)} results of the image to decide about. "
                + ('Say of which "model".' if found else "Ask for an inference first.")
            )
        made = decide(decision, found[0].result, header_of(image), reviewer)
        self.reviews.add(made)
        return made

    def _stored(self, label_id: str) -> RemoteLabel:
        self._look()
        for label in self._labels:
            if label.uid == label_id:
                return label
        raise PyrasegError(f"{self.name()} has no segmentation {label_id!r} of the series that are served.")

    def _kept_in(self, image_id: str, tag: str) -> Path:
        """Return the folder of a label that stays on this machine."""
        if tag not in list(DefaultLabelTag):
            raise PyrasegError(f"The tag of a label is {' or '.join(DefaultLabelTag)}, not {tag!r}.")
        return self.folder / self._listed(image_id).uid / "labels" / DefaultLabelTag(tag).value

    def _kept(self, image_id: str, tag: str) -> list[Path]:
        return list(self._kept_in(image_id, tag).glob("label.*"))

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        tags = [tag.value for tag in DefaultLabelTag if tag != DefaultLabelTag.FINAL]
        labels = {tag: image_id for tag in tags if self._kept(image_id, tag)}
        if drawn := self._labels_of(image_id):
            labels[DefaultLabelTag.FINAL.value] = drawn[0].uid
        return labels

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        return self.get_labels_by_image_id(image_id).get(tag, "")

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        if label_tag != DefaultLabelTag.FINAL:
            return str(next(iter(self._kept(label_id, label_tag)), ""))
        return str(self._fetched(self._stored(label_id)))

    def _fetched(self, label: RemoteLabel) -> Path:
        path = self.folder / "labels" / f"{label.uid}.dcm"
        if not path.is_file():
            with replacing(path) as temporary:
                self.archive.fetch_label(label, temporary)
        return path

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> bytes:
        return Path(self.get_label_uri(label_id, label_tag)).read_bytes()

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        return {}

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Return each labeled series with the newest label of it."""
        return [
            {"image": dicom_of(self.get_image_uri(uid)), "label": str(self._fetched(self._labels_of(uid)[0]))}
            for uid in self.get_labeled_images()
        ]

    def training_cases(self, task: Task) -> list[dict[str, str]]:
        """Return the labeled series of a task: folder, newest label whose segments are its classes, and patient.

        The patient is told as a number that names nobody; a segmentation of something else is left out, and the log
        says so.
        """
        cases, identities = [], []
        for uid in self.get_labeled_images():
            for label in self._labels_of(uid):
                path = self._fetched(label)
                try:
                    task.table.indices(open_label(path).regions, f"The segmentation {label.uid}", "segments")
                    folder = Path(dicom_of(self.get_image_uri(uid)))
                except (PacsError, DiskError):  # it may be there another time
                    raise
                except PyrasegError as error:
                    logger.warning("Left out for %s: %s", task.name, error)
                    continue
                cases.append({"image": str(folder), "label": str(path)})
                header = pydicom.dcmread(min(folder.glob("*.dcm")), stop_before_pixels=True)
                identities.append(Identity.of(header, uid))
                break
        patients = group_patients(identities, strict=False)
        return [{**case, "patient": patient} for case, patient in zip(cases, patients, strict=True)]

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        raise _refusal("images stay where they are, and no archive is made of them")

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        raise _refusal("new images are put there")

    def remove_image(self, image_id: str) -> None:
        raise _refusal("nothing is removed there")

    def remove_label(self, label_id: str, label_tag: str) -> None:
        if label_tag == DefaultLabelTag.FINAL:
            raise _refusal("nothing is removed there; a newer label takes the place of an older one")
        for path in self._kept(label_id, label_tag):
            path.unlink()

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        raise _refusal("a stored segmentation does not change")

    def set_name(self, name: str) -> None:
        raise _refusal("it is called as that is")

    def set_description(self, description: str) -> None:
        raise _refusal("it is described by that")


def _refusal(why: str) -> PyrasegError:
    return PyrasegError(f"The server works on the DICOM series of a folder or PACS; {why}.")

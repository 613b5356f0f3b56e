# SPDX-License-Identifier: Apache-2.0
"""The app that MONAI Label serves: its tasks for bundles, with what they lack for ours.

It imports MONAI Label, so it works in the environment that `make label` makes alone.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.train.bundle import BundleTrainTask
from torch import nn

from bundle.pyraseg.core import PyrasegError, keep_memory
from bundle.pyraseg.dicom import read_wanted
from bundle.pyraseg.workflow import plain_console
from bundle.pyraseg_tools.monai_label.archives import Archive, FolderArchive, PacsArchive
from bundle.pyraseg_tools.monai_label.classes import Task
from bundle.pyraseg_tools.monai_label.dicom_datastore import DicomDatastore
from bundle.pyraseg_tools.monai_label.fields import INTERACTIVE
from bundle.pyraseg_tools.monai_label.folder_datastore import FolderDatastore
from bundle.pyraseg_tools.monai_label.inference import BatchInference, Inference, QuietInference, Sampling, Scoring
from bundle.pyraseg_tools.monai_label.training import ForeignTraining, Training
from bundle.pyraseg_tools.review import Algorithm, ReviewLog


class LabelApp(MONAILabelApp):
    """Serve the bundles below `model/`, as the app `monaibundle` does.

    A bundle with code of its own, not made by `pyraseg package`, gets MONAI Label's own tasks.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        if conf.get("verbose") != "true":  # names of files may be names of patients
            for name in ("monailabel", "monai.bundle.scripts", "__main__"):
                logging.getLogger(name).setLevel(logging.WARNING)
        self.bundles = {name: str(Path(app_dir) / "model" / name) for name in conf["models"].split(",")}
        keep_memory()
        plain_console()  # of a training, which is a process of its own
        super().__init__(app_dir, studies, conf, name="Pyraseg", description="Segmentation by Pyraseg's bundles")

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict:
        """Infer from an image of the datastore or one that was uploaded, and from no other file of this machine."""
        image = request.get("image")
        if not isinstance(image, str) or (os.path.exists(image) and not _is_uploaded(Path(image))):
            raise PyrasegError(f"There is no image {image!r}.")
        found, store = super().infer(request, datastore), self.datastore()
        made = (found["params"] or {}).get("algorithm")  # bundles of other makers do not say
        made = (
            made if request.get("model") in self.bundles else None
        )  # what a person clicked is no proposal of a program
        if isinstance(store, DicomDatastore) and made and found["file"] and not os.path.exists(image):
            final = request.get("save_label") and request.get("label_tag") == DefaultLabelTag.FINAL
            label = found["label"] if final else ""
            store.keep_proposal(image, Path(found["file"]), request["model"], Algorithm(*made), label)
        return found

    def bundle_path(self, model: str | None) -> str | None:
        """Return the bundle of a task that is about to be queued; MONAI Label queues one for an unknown model too."""
        if model is not None and model not in self.bundles:
            raise PyrasegError(f"There is no model {model!r}; there are {', '.join(self.bundles)}.")
        return super().bundle_path(model)

    def init_datastore(self) -> Datastore:
        ours = [Task.of(path) for path in self.bundles.values() if _is_ours(path)]
        if self.studies.startswith(("http://", "https://")):
            return self._dicom(self._pacs(), ours)
        if self.conf["dicom"] == "true":
            return self._dicom(FolderArchive(Path(self.studies), series=read_wanted(self.conf.get("series"))), ours)
        return FolderDatastore(
            ours if len(ours) == len(self.bundles) else (),  # what others call their classes is unknown
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _dicom(self, archive: Archive, tasks: list[Task]) -> DicomDatastore:
        folder = Path(self.app_dir)
        return DicomDatastore(archive, tasks, folder / "dicom", reviews=ReviewLog(folder / "reviews.jsonl"))

    def _pacs(self) -> PacsArchive:
        return PacsArchive(
            self.studies,
            json.loads(self.conf["filter"]),
            series=read_wanted(self.conf.get("series")),
            environment=os.environ,
            ca_bundle=Path(self.conf["ca_bundle"]) if self.conf["ca_bundle"] else None,
            allow_http=self.conf["allow_http"] == "true",
        )

    def init_infers(self) -> dict[str, InferTask]:
        infers: dict[str, InferTask] = {}
        for name, path in self.bundles.items():
            infers[name] = task = (Inference if _is_ours(path) else QuietInference)(path, self.conf)
            if _is_ours(path) and _takes_clicks(task.network):
                infers |= self._interactive(name, path)
        return infers

    def _interactive(self, name: str, path: str) -> dict[str, InferTask]:
        """Return the interactive models of a bundle whose network clicks correct, by their names."""
        from bundle.pyraseg_tools.monai_label.clicking import (  # no code of older packages has it
            ClickInference,
            Looking,
        )

        looking = Looking(path, self.conf)
        found = {f"{name}_{kind.value}": ClickInference(looking, kind) for kind in map(InferType, INTERACTIVE)}
        if taken := sorted(found.keys() & self.bundles.keys()):
            raise PyrasegError(f"{taken[0]} is the name of a bundle and of the interactive model of {name}. Rename it.")
        return found

    def init_trainers(self) -> dict[str, BundleTrainTask]:
        trainers = {
            name: (Training if _is_ours(path) else ForeignTraining)(path, self.conf)
            for name, path in self.bundles.items()
            if f"{name}_{InferType.DEEPGROW.value}" not in self._infers  # of a model that lies in no package
        }
        if isinstance(self.datastore(), DicomDatastore):  # its labels are DICOM SEG, which others do not read
            trainers = {name: trainer for name, trainer in trainers.items() if isinstance(trainer, Training)}
        return {name: trainer for name, trainer in trainers.items() if trainer.is_valid()}

    def init_batch_infer(self) -> BatchInferTask:
        return BatchInference()

    def init_strategies(self) -> dict[str, Any]:
        return {"random": Random(), "first": First(), "epistemic": Epistemic()}

    def init_scoring_methods(self) -> dict[str, Scoring]:
        ours = {name: path for name, path in self.bundles.items() if _is_ours(path)}
        return {name: Scoring(Sampling(path, self.conf)) for name, path in ours.items()}


def _is_uploaded(path: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(Path(tempfile.gettempdir()).resolve())


def _takes_clicks(network: nn.Module | None) -> bool:
    """Return whether clicks correct a network, whose classes do not overlap: clients send one class a voxel."""
    return hasattr(network, "refine") and not getattr(network, "overlapping", True)


def _is_ours(bundle: str) -> bool:
    return (Path(bundle) / "bundle" / "pyraseg").is_dir()

# SPDX-License-Identifier: Apache-2.0
"""The app that MONAI Label serves: its tasks for bundles, with what they lack for ours.

It imports MONAI Label, so it works in the environment that `make label` makes alone.
"""

import json
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Activationsd, Transform
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.scoring.epistemic_v2 import EpistemicScoring
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.transform.post import Restored
from monailabel.utils.others.generic import file_ext
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from bundle.pyraseg.errors import PyrasegError, describe
from bundle.pyraseg.inference.writers.label_map import write_grid
from bundle.pyraseg.labelling.archives import Archive, FolderArchive, PacsArchive
from bundle.pyraseg.labelling.classes import Task
from bundle.pyraseg.labelling.dicom_datastore import DicomDatastore
from bundle.pyraseg.labelling.folder_datastore import FolderDatastore
from bundle.pyraseg.labelling.retraining import fixed_validation, patients_of
from bundle.pyraseg.labelling.series_files import dicom_of
from bundle.pyraseg.workflow.console import plain_console

logger = logging.getLogger(__name__)

#: Options of MONAI Label's trainings that name what is run: a part of the config, and a file that is read as one.
CODE = ("run_id", "tracking", "tracking_uri", "tracking_experiment_name")


@contextmanager
def left_out() -> Iterator[None]:
    """Go on where one of many images fails, and tell why."""
    try:
        yield
    except Exception as error:
        logger.warning("An image is left out: %s", describe(error))


def models(bundle: str) -> list[str]:
    """Return the models of a bundle, the served one first: `model.pt`, and those that a retraining replaced."""
    folder = Path(bundle) / "models"
    replaced = sorted((folder / "replaced").glob("*.pt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return ["model.pt", *(path.relative_to(folder).as_posix() for path in replaced)]


def check_model(bundle: str, request: Mapping[str, Any]) -> None:
    """Refuse a request for a model that the bundle does not have, in place of which MONAI Label takes another one."""
    asked = request.get("model_filename", "model.pt")
    asked = asked[0] if isinstance(asked, list) and asked else asked  # the options, as a client has got them
    if asked not in models(bundle):
        raise PyrasegError(f"There is no model {asked!r}; there are {', '.join(models(bundle))}.")


class QuietInference(BundleInferTask):
    """Inference of any bundle. The log names a file, which may name a patient, only where a client asks."""

    def __call__(self, request: Mapping[str, Any], callbacks: Mapping | None = None) -> tuple[Any, dict]:
        return super().__call__({"logging": "WARNING", **request}, callbacks)


class Inference(QuietInference):
    """Inference of a bundle of ours, by its model or one that a retraining replaced."""

    def config(self) -> dict[str, Any]:
        return {**super().config(), "model_filename": models(self.bundle_path)}

    def post_transforms(self, data: Mapping[str, Any] | None = None) -> list[Transform]:
        steps = super().post_transforms(data)
        if self.dimension == 2:  # it would take the one slice of a DICOM photograph for a size to resize to
            steps = [step for step in steps if not isinstance(step, Restored)]
        return steps

    def __call__(self, request: Mapping[str, Any], callbacks: Mapping | None = None) -> tuple[Any, dict]:
        check_model(self.bundle_path, request)
        defaults, image = {"model_filename": "model.pt"}, request["image"]
        if self.dimension == 2:
            defaults["result_extension"] = ".png"  # of a JPEG too, which would blur the classes
        if isinstance(image, str) and (series := dicom_of(image)) != image:
            defaults.setdefault("result_extension", ".nii.gz")
            request = {**request, "image": series}
        return super().__call__({**defaults, **request}, callbacks)

    def writer(self, data: Mapping[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[Any, dict]:
        """Write NIfTI as it lies; MONAI Label writes it by ITK, which straightens the axes of a tilted series."""
        suffix = data.get("result_extension") or file_ext(data["image_path"])
        if self.dimension == 2 or suffix != ".nii.gz":
            return super().writer(data, extension, dtype)
        labels = data[self.output_label_key]
        stem = Path(tempfile.gettempdir()) / f"tmp{uuid.uuid4().hex}"
        path = write_grid(np.asarray(labels.array), np.asarray(labels.affine), stem, compression=1)
        return str(path), data.get(self.output_json_key, {})


class Sampling(Inference):
    """Class probabilities, with dropout at work and everything else as for an inference."""

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        super().__init__(path, conf, skip_writer=True, add_post_restore=False)

    def post_transforms(self, data: Mapping[str, Any] | None = None) -> list[Transform]:
        return [step for step in super().post_transforms(data) if isinstance(step, Activationsd)]

    def _get_network(self, device: str, data: Mapping[str, Any] | None) -> nn.Module:
        network = super()._get_network(device, data)
        for module in network.modules():
            if isinstance(module, _DropoutNd):
                module.train()
        return network


class BatchInference(BatchInferTask):
    """Inference of many images; without several GPUs it asks for none, which MONAI Label divides by."""

    def __call__(self, request: Mapping[str, Any], datastore: Datastore, infer: Callable) -> dict:
        def infer_or_tell(request: dict, datastore: Datastore) -> dict:
            with left_out():
                return infer(request, datastore)
            return {}

        several = torch.cuda.device_count() > 1 and request.get("multi_gpu", True)
        return super().__call__({"logging": "WARNING", **request, "multi_gpu": several}, datastore, infer_or_tell)


class Scoring(EpistemicScoring):
    """Uncertainty of each unlabelled image; one that cannot be read stops no other."""

    def run_scoring(self, image_id: str, simulation_size: int, model_ts: int, datastore: Datastore) -> None:
        with left_out():
            super().run_scoring(image_id, simulation_size, model_ts, datastore)


class Training(BundleTrainTask):
    """Training of a bundle on the labels of the server, with a fixed validation set; see `retraining`."""

    def config(self) -> dict[str, Any]:
        options = {**super().config(), "model_filename": models(self.bundle_path)}
        return {name: value for name, value in options.items() if name not in CODE}

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict:
        check_model(self.bundle_path, request)
        share, epochs = request.get("val_split", 0.2), request.get("max_epochs", 50)
        if not isinstance(share, int | float) or not 0 < share < 1:
            raise PyrasegError(f"val_split is {share!r}. Give the share of the images to validate on, such as 0.2.")
        if not isinstance(epochs, int) or epochs < 1:
            raise PyrasegError(f"max_epochs is {epochs!r}. Give a number from 1 on.")
        return super().__call__(request, datastore)

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list) -> None:
        if pretrained:  # or MONAI Label would ask whether the file None is there
            super()._load_checkpoint(model_pytorch, pretrained, train_handlers)

    def _fetch_datalist(self, request: Mapping[str, Any], datastore: Datastore) -> list[dict[str, str]]:
        if isinstance(datastore, DicomDatastore):
            return datastore.training_cases(Task.of(self.bundle_path))
        return super()._fetch_datalist(request, datastore)

    def _partition_datalist(
        self, datalist: list[dict[str, str]], request: Mapping[str, Any], shuffle: bool = False
    ) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        cases = {Path(item["image"]).name: item for item in datalist}
        patients = self._patients(cases)
        share = request.get("val_split", 0.2)
        chosen = fixed_validation(Path(self.bundle_path) / "validation.json", patients, share)
        apart = {patients[name] for name in chosen}
        parts: tuple[list, list] = ([], [])
        for name in sorted(cases):  # MONAI Label's order differs from run to run
            if name in chosen or patients[name] not in apart:
                parts[name in chosen].append({key: cases[name][key] for key in ("image", "label")})
        logger.info("%d labelled images to train on, %d to validate on", *map(len, parts))
        return parts

    def _patients(self, cases: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return whose each image is: by the pattern that the server was given, by DICOM, or somebody of its own."""
        if self.conf.get("patient_pattern"):
            return patients_of(list(cases), self.conf["patient_pattern"])
        return {name: case.get("patient", name) for name, case in cases.items()}

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides["record#cases"] = {
            "training": overrides["train#dataset#data"],
            "validation": overrides["validate#dataset#data"],
        }
        overrides["output_dir"] = f"{self.bundle_path}/runs/{datetime.now():%Y%m%d-%H%M%S}"
        return overrides


class LabelApp(MONAILabelApp):
    """Serve the bundles below `model/`, as the app `monaibundle` does.

    A bundle with code of its own, not made by `scripts/package_bundle.py`, gets MONAI Label's own tasks.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        if conf.get("verbose") != "true":  # names of files may be names of patients
            for name in ("monailabel", "monai.bundle.scripts", "__main__"):
                logging.getLogger(name).setLevel(logging.WARNING)
        self.bundles = {name: str(Path(app_dir) / "model" / name) for name in conf["models"].split(",")}
        plain_console()  # of a training, which is a process of its own
        super().__init__(app_dir, studies, conf, name="Pyraseg", description="Segmentation by Pyraseg's bundles")

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict:
        """Infer from an image of the datastore or one that was uploaded, and from no other file of this machine."""
        image = request.get("image")
        if not isinstance(image, str) or (os.path.exists(image) and not _is_uploaded(Path(image))):
            raise PyrasegError(f"There is no image {image!r}.")
        return super().infer(request, datastore)

    def train(self, request: dict[str, Any]) -> dict:
        """Train as the bundle says, and in no other way that a client names."""
        return super().train({name: value for name, value in request.items() if name not in CODE})

    def init_datastore(self) -> Datastore:
        ours = [Task.of(path) for path in self.bundles.values() if _is_ours(path)]
        if self.studies.startswith(("http://", "https://")):
            return self._dicom(self._pacs(), ours)
        if self.conf["dicom"] == "true":
            return self._dicom(FolderArchive(Path(self.studies)), ours)
        return FolderDatastore(
            ours if len(ours) == len(self.bundles) else (),  # nobody knows what others call their classes
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _dicom(self, archive: Archive, tasks: list[Task]) -> DicomDatastore:
        return DicomDatastore(archive, tasks, Path(self.app_dir) / "dicom")

    def _pacs(self) -> PacsArchive:
        return PacsArchive(
            self.studies,
            json.loads(self.conf["filter"]),
            environment=os.environ,
            ca_bundle=Path(self.conf["ca_bundle"]) if self.conf["ca_bundle"] else None,
            allow_http=self.conf["allow_http"] == "true",
        )

    def init_infers(self) -> dict[str, QuietInference]:
        return {
            name: (Inference if _is_ours(path) else QuietInference)(path, self.conf)
            for name, path in self.bundles.items()
        }

    def init_trainers(self) -> dict[str, BundleTrainTask]:
        trainers = {
            name: (Training if _is_ours(path) else BundleTrainTask)(path, self.conf)
            for name, path in self.bundles.items()
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
    return path.resolve().is_relative_to(Path(tempfile.gettempdir()).resolve())


def _is_ours(bundle: str) -> bool:
    return (Path(bundle) / "bundle" / "pyraseg").is_dir()

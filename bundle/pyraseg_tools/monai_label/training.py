# SPDX-License-Identifier: Apache-2.0
"""Training of bundles as MONAI Label calls it."""

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask

from bundle.pyraseg.core import PyrasegError, without_suffix
from bundle.pyraseg.datalists import patients_by_pattern
from bundle.pyraseg_tools.monai_label.classes import Task
from bundle.pyraseg_tools.monai_label.dicom_datastore import DicomDatastore
from bundle.pyraseg_tools.monai_label.fields import CODE, models
from bundle.pyraseg_tools.monai_label.retraining import fixed_validation

logger = logging.getLogger(__name__)


class ForeignTraining(BundleTrainTask):
    """Training of a bundle of another make, of which clients are not asked what is run."""

    def config(self) -> dict[str, Any]:
        return {name: value for name, value in super().config().items() if name not in CODE}


class Training(ForeignTraining):
    """Training of a bundle on the labels of the server, with a fixed validation set; see `retraining`."""

    def config(self) -> dict[str, Any]:
        return {**super().config(), "model_filename": models(self.bundle_path)}

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict:
        share = request.get("val_split", 0.2)
        if not 0 < share < 1:
            raise PyrasegError(f"val_split is {share!r}. Give the share of the images to validate on, such as 0.2.")
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
        datalist = sorted(datalist, key=lambda item: str(item["image"]))  # MONAI Label's order differs from run to run
        cases = {Path(item["image"]).name: item for item in datalist}
        patients = self._patients(cases)
        share = request.get("val_split", 0.2)
        chosen = fixed_validation(Path(self.bundle_path) / "validation.json", patients, share)
        apart = {patients[name] for name in chosen}
        parts: tuple[list, list] = ([], [])
        for name in cases:
            if name in chosen or patients[name] not in apart:
                parts[name in chosen].append({key: cases[name][key] for key in ("image", "label")})
        logger.info("%d labeled images to train on, %d to validate on", *map(len, parts))
        return parts

    def _patients(self, cases: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return whose each image is: by the pattern that the server was given, by DICOM, or somebody of its own."""
        if self.conf.get("patient_pattern"):
            names = [without_suffix(name) for name in cases]
            return dict(zip(cases, patients_by_pattern(names, self.conf["patient_pattern"]), strict=True))
        unknown = sum("patient" not in case for case in cases.values())
        if unknown:
            logger.warning("%d of %d images have no known patient: each counts as one patient", unknown, len(cases))
        return {name: case.get("patient", name) for name, case in cases.items()}

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides["record#cases"] = {
            "training": overrides["train#dataset#data"],
            "validation": overrides["validate#dataset#data"],
        }
        if refuse := self.conf.get("refuse"):
            overrides["refuse"] = refuse.split(",")
        overrides["output_dir"] = f"{self.bundle_path}/runs/{datetime.now():%Y%m%d-%H%M%S}"
        return overrides

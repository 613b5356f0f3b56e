# SPDX-License-Identifier: Apache-2.0
"""Inference of bundles as MONAI Label calls it: of one image, of many, and for the uncertainty in each."""

import logging
import tempfile
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Activationsd, Transform
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.scoring.epistemic_v2 import EpistemicScoring
from monailabel.transform.post import Restored
from monailabel.utils.others.generic import file_ext
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from bundle.pyraseg.core import describe
from bundle.pyraseg.inference import Algorithm, ImageGuard, on_true_grid, write_grid
from bundle.pyraseg.runtime import in_words
from bundle.pyraseg.training import read_model
from bundle.pyraseg.transforms import place_of
from bundle.pyraseg.workflow import regions_of
from bundle.pyraseg_tools.monai_label.classes import labels_of_regions
from bundle.pyraseg_tools.monai_label.fields import models
from bundle.pyraseg_tools.monai_label.series_files import dicom_of, place_for_viewers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """Hold a model that was looked at: when its file had changed, its guard, and its name and version."""

    changed: int
    guard: ImageGuard
    algorithm: tuple[str, str]


@contextmanager
def left_out() -> Generator[None]:
    """Go on where one of many images fails, and tell why."""
    try:
        yield
    except Exception as error:
        logger.warning("An image is left out: %s", describe(error))


class QuietInference(BundleInferTask):
    """Inference of any bundle. The log names a file, which may name a patient, only where a client asks."""

    def __call__(self, request: Mapping[str, Any], callbacks: Mapping | None = None) -> tuple[Any, dict]:
        return super().__call__({"logging": "WARNING", **request}, callbacks)


class Inference(QuietInference):
    """Inference of a bundle of ours, by its model or one that a retraining replaced."""

    def __init__(self, path: str, conf: Mapping[str, str], **options: Any) -> None:
        self._checked: dict[Path, Checked] = {}
        super().__init__(path, conf, **options)
        if refuse := conf.get("refuse"):
            self.bundle_config["refuse"] = refuse.split(",")
        #: What is done about images that are unlike those of the training; packages of older versions do not say.
        self.unlike: str = conf.get("unlike") or self.bundle_config.get("unlike", "warn")
        if regions_of(self.bundle_config) is not None:  # the channels are regions, and what is returned are classes
            names = self.bundle_config["class_names"]
            self.labels = {name: index for index, name in enumerate(names) if index}

    def config(self) -> dict[str, Any]:
        return {**super().config(), "model_filename": models(self.bundle_path)}

    def _get_network(self, device: str, data: Mapping[str, Any] | None) -> nn.Module:
        self._check_model(data)
        return super()._get_network(device, data)

    def _check_model(self, data: Mapping[str, Any] | None) -> Checked:
        """Return what is known of the model that is asked for.

        A new one of other settings than the bundle's, or with weights that are not finite, is refused.
        """
        chosen = (data or {}).get("model_filename") or "model.pt"
        path = Path(self.path[0]).parent / (chosen if isinstance(chosen, str) else chosen[0])
        changed = path.stat().st_mtime_ns
        if path not in self._checked or self._checked[path].changed != changed:
            _, trained = read_model(path)
            self.bundle_config.get_parsed_content("settings").require(trained, f"The model {path.name}")
            algorithm = Algorithm(name=Path(self.bundle_path).name, model_file=path)
            told = algorithm.name, algorithm.version
            self._checked[path] = Checked(changed, ImageGuard(path, unlike=self.unlike), told)
        return self._checked[path]

    def run_inferer(self, data: dict[str, Any], *args: Any, **options: Any) -> dict[str, Any]:
        """Judge the image before the network sees it; the parameters of the result tell what was found, and by which
        weights."""
        checked = self._check_model(data)
        unlike = checked.guard.judge("An image", data[self.input_key])
        data = super().run_inferer(data, *args, **options)
        told: dict[str, Any] = {"algorithm": list(checked.algorithm)}
        if unlike is not None:
            told["unlike"] = round(unlike, 3)
            if unlike > 1:
                told["message"] = f"The image is {in_words(unlike)}. The labels may mean nothing: look at them."
        data[self.output_json_key] = {**data.get(self.output_json_key, {}), **told}
        return data

    @property
    def is_flat(self) -> bool:
        """Return whether an image is one slice without a place in a volume, by what the bundle declares."""
        return self.bundle_config["image_kind"] != "volume"

    def post_transforms(self, data: Mapping[str, Any] | None = None) -> list[Transform]:
        steps = super().post_transforms(data)
        steps += labels_of_regions(self.bundle_config, self.output_label_key)
        if self.is_flat:  # it would take the one slice of a DICOM photograph for a size to resize to
            steps = [step for step in steps if not isinstance(step, Restored)]
        return steps

    def __call__(self, request: Mapping[str, Any], callbacks: Mapping | None = None) -> tuple[Any, dict]:
        defaults, image = {"model_filename": "model.pt"}, request["image"]
        if self.is_flat:
            defaults["result_extension"] = ".png"  # of a JPEG too, which would blur the classes
        if isinstance(image, str) and (series := dicom_of(image)) != image:
            defaults.setdefault("result_extension", ".nii.gz")
            request = {**request, "image": series}
        return super().__call__({**defaults, **request}, callbacks)

    def writer(self, data: Mapping[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[Any, dict]:
        """Write NIfTI as it lies; MONAI Label writes it by ITK, which straightens the axes of a tilted series."""
        suffix = data.get("result_extension") or file_ext(data["image_path"])
        if self.is_flat or suffix != ".nii.gz":
            return super().writer(data, extension, dtype)
        labels = data[self.output_label_key]
        stem = Path(tempfile.gettempdir()) / f"tmp{uuid.uuid4().hex}"
        image = labels if labels.ndim == 4 else labels[None]
        values, affine = on_true_grid(np.asarray(labels.array), image)
        place = place_of(image) or place_for_viewers(affine)
        path = write_grid(values, affine, stem, place=place, compression=1)
        return str(path), data.get(self.output_json_key, {})


class Sampling(Inference):
    """Class probabilities, with dropout at work and everything else as for an inference."""

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        super().__init__(path, conf, skip_writer=True, add_post_restore=False)
        self.unlike = "ignore"

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
    """Uncertainty of each unlabeled image; one that cannot be read stops no other."""

    def run_scoring(self, image_id: str, simulation_size: int, model_ts: int, datastore: Datastore) -> None:
        with left_out():
            super().run_scoring(image_id, simulation_size, model_ts, datastore)

# SPDX-License-Identifier: Apache-2.0
"""How far images are from those of a model's training, by the guard of its weights."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from PIL import Image

from benchmarks.guard.pictures import in_color, in_gray
from bundle.pyraseg.commands import config_files
from bundle.pyraseg.inference import read_guard
from bundle.pyraseg.runtime import Guard, image_statistics, planes_of
from bundle.pyraseg.workflow import read_config, verbatim

#: Share of a model's own test part that is flagged where models are compared.
FALSE_ALARMS = 0.05
#: What was taken for a lateral view or another polarity, made of a model's own test part.
CHANGED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "turned by a quarter": np.rot90,
    "upside down": np.flipud,
    "inverted": lambda picture: 255 - picture,
    "left and right exchanged": np.fliplr,
}


def config_of(task: str, folder: Path, program: str) -> ConfigParser:
    """Return the config of a task's training or inference, on the data in a folder."""
    files, _ = config_files([task], program=program)
    return read_config(files, {"dataset_dir": verbatim(folder.resolve()), "device": "cpu"})


class Measuring:
    """Give the images of a task, and pictures, to the guard of its weights.

    Args:
        training, inference: configs of the task.
        guard: of its weights.
    """

    def __init__(self, training: ConfigParser, inference: ConfigParser, guard: Guard) -> None:
        self.guard = guard
        self.kind = inference["image_kind"]
        self.cases = training.get_parsed_content("cases")["test"]
        steps = inference.get_parsed_content("preprocessing").transforms
        self.load = next(step for step in steps if isinstance(step, LoadImaged))
        self.chain = Compose([step for step in steps if not isinstance(step, LoadImaged)])
        self.like = self.load({"image": self.cases[0]["image"]})["image"]

    def of_image(self, image: MetaTensor) -> float:
        """Return how far a loaded image is from those of the training, as a multiple of the shipped threshold."""
        shown = np.asarray(self.chain({"image": image})["image"], np.float32)
        volume = shown if shown.ndim == 4 else shown[..., None]
        planes = [np.ascontiguousarray(volume[..., number]) for number in planes_of(volume.shape[3])]
        return self.guard.unlike([image_statistics(plane) for plane in planes])

    def own(self) -> list[float]:
        """Return how far each case of the test part is."""
        return [self.of_image(self.load({"image": case["image"]})["image"]) for case in self.cases]

    def of_picture(self, picture: np.ndarray) -> float:
        """Return how far a picture is, (rows, columns[, 3]) uint8, in the form that the model takes.

        For a model of volumes it lies, in gray, in each slice of the first volume of its test part.
        """
        if self.kind == "photograph":
            return self.of_image(MetaTensor(torch.from_numpy(in_color(picture).transpose(2, 1, 0).copy())))
        gray = in_gray(picture)
        if self.kind == "projection":
            return self.of_image(MetaTensor(torch.from_numpy(gray.T.astype(np.float32)[None])))
        _, columns, rows, depth = self.like.shape
        plane = np.asarray(Image.fromarray(gray).resize((columns, rows))).T.astype(np.float32)
        volume = torch.from_numpy(np.repeat(plane[None, ..., None], depth, axis=3))
        return self.of_image(volume.as_subclass(MetaTensor).copy_meta_from(self.like, copy_attr=True))


def measured(
    task: str, folder: Path, weights: Path, foreign: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, Any] | None:
    """Return which images the guard of a task's weights flags; None where there are no weights, or no guard in them.

    Args:
        task: of the weights.
        folder: its data set.
        weights: file.
        foreign: pictures by the name of their set; those of the task itself are left out.
    """
    guard = read_guard(weights)
    if guard is None:
        return None
    measuring = Measuring(config_of(task, folder, "train"), config_of(task, folder, "inference"), guard)
    own = np.array(measuring.own())
    line = float(np.quantile(own, 1 - FALSE_ALARMS))

    def flagged(values: Sequence[float]) -> dict[str, Any]:
        found = np.array(values)
        return {
            "images": len(found),
            "flagged": float((found > line).mean()),
            "flagged as shipped": float((found > 1).mean()),
            "median": float(np.median(found)),
        }

    changed = {}
    if measuring.kind == "projection":
        pictures = [np.asarray(measuring.load({"image": case["image"]})["image"])[0] for case in measuring.cases]
        upright = [picture.reshape(picture.shape[:2]).T.astype(np.uint8) for picture in pictures]
        for name, change in CHANGED.items():
            changed[name] = flagged([measuring.of_picture(change(picture)) for picture in upright])
    return {
        "guard_sha256": hashlib.sha256(guard.text.encode()).hexdigest(),
        "threshold": guard.threshold,
        "axes": len(guard.axes),
        "own": flagged(own.tolist()),
        "foreign": {
            name: flagged([measuring.of_picture(picture) for picture in pictures])
            for name, pictures in foreign.items()
            if name != task
        },
        "changed": changed,
    }

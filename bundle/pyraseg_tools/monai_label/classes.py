# SPDX-License-Identifier: Apache-2.0
"""What the values of a submitted label mean: the classes of a served bundle."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from monai.transforms import Transform

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.inference import Algorithm
from bundle.pyraseg.labels import ClassTable, Region, SegmentClass, segment_classes
from bundle.pyraseg.transforms import RegionsToLabeld
from bundle.pyraseg.workflow import regions_of


@dataclass(frozen=True)
class Task:
    """Hold what a served bundle of ours finds.

    Attributes:
        name: of the bundle.
        table: its classes, background first, and what else they may be called.
        terminology: the codes of each class but the background; labels in files need none.
        model_file: its weights, which a retraining replaces.
    """

    name: str
    table: ClassTable
    terminology: Mapping[str, Mapping]
    model_file: Path

    @classmethod
    def of(cls, folder: str | Path) -> "Task":
        """Read it from the configs of a bundle, of which nothing is run."""
        folder = Path(folder)
        train, inference = (
            json.loads((folder / "configs" / f"{name}.json").read_text()) for name in ("train", "inference")
        )
        classes = inference["class_names"]
        return cls(
            folder.name,
            ClassTable(classes, train.get("label_names"), train.get("overlap_order")),
            inference.get("terminology", {}),
            folder / "models" / "model.pt",
        )

    @property
    def algorithm(self) -> Algorithm:
        """Return which program and weights segment now."""
        return Algorithm(name=self.name, model_file=self.model_file)

    @cached_property
    def segments(self) -> list[SegmentClass]:
        """Return what a DICOM SEG says of its classes.

        Raises:
            PyrasegError: a class has no code.
        """
        return segment_classes(self.table.class_names, self.terminology)


def meant(tasks: Sequence[Task], values: Iterable[int], info: Mapping[str, Any]) -> tuple[Task, dict[int, int]]:
    """Return whose classes the values of a label are, and the class of each.

    A client names its segments, in its own order: 3D Slicer with their values (`idx`), others in the order of values.
    An inference names its model. A label without names is one of the only bundle.

    Args:
        tasks: the bundles of the server.
        values: that the label holds, background left out.
        info: what came with it: `label_info`, a list of {"name": ..., "idx": ...}, or `model`.

    Raises:
        PyrasegError: it is unknown.
    """
    values = sorted({int(value) for value in values} - {0})
    names = _names(info.get("label_info") or [])
    if names:
        unnamed = [value for value in values if value not in names]
        if unnamed:
            raise PyrasegError(
                f"The label holds {unnamed}, but names are given for {sorted(names)} alone. Name each segment."
            )
        for task in tasks:
            classes = {value: task.table.index_of(Region(names[value])) for value in values}
            known = {value: index for value, index in classes.items() if index is not None}
            if len(known) == len(classes):
                return task, known
        known = "; ".join(f"{task.name}: {', '.join(task.table.class_names[1:])}" for task in tasks)
        raise PyrasegError(
            f"The segments {', '.join(names[value] for value in values)} are not all classes of one bundle ({known}). "
            "Rename or remove the others."
        )
    named = [task for task in tasks if task.name == info.get("model")] or tasks
    if len(named) != 1:
        raise PyrasegError(
            f"The label names no classes, but {len(tasks)} bundles are served. Submit it with the names of its "
            'segments (label_info), or with its "model".'
        )
    classes = range(len(named[0].table.class_names))
    unknown = [value for value in values if value not in classes]
    if unknown:
        raise PyrasegError(f"The label holds {unknown}, but {named[0].name} has {len(classes)} classes. Correct it.")
    return named[0], {value: value for value in values}


def _names(entries: Any) -> dict[int, str]:
    """Return the name of each value."""
    try:
        named = [entry for entry in entries if entry.get("name")]
        return {int(entry.get("idx") or place): str(entry["name"]) for place, entry in enumerate(named, 1)}
    except (AttributeError, TypeError, ValueError) as error:
        raise PyrasegError('label_info is no list such as [{"name": "liver", "idx": 1}]. Correct it.') from error


def as_classes(values: np.ndarray, classes: Mapping[int, int]) -> np.ndarray:
    """Return a label (of any shape) whose values are class indices, uint8."""
    result = np.zeros(values.shape, np.uint8)
    for value, index in classes.items():
        result[values == value] = index
    return result


def labels_of_regions(config: ConfigParser, key: str) -> list[Transform]:
    """Return what makes classes of regions, which overlap: viewers get, and send back, one class a voxel.

    That is what the labels of a training hold, so what a person corrects is what the next training learns from.

    Args:
        config: of the inference of a bundle.
        key: of the label values.
    """
    if (regions := regions_of(config)) is None:
        return []
    return [RegionsToLabeld(key, class_names=config["class_names"], regions=regions)]

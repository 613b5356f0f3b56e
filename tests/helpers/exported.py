# SPDX-License-Identifier: Apache-2.0
"""A small network as an exported model, beside what the bundle itself makes of an image."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.transforms import Compose, LoadImaged

from bundle.pyraseg.deployment.exporting import Parts, export
from bundle.pyraseg.deployment.recipe import Decision
from bundle.pyraseg.deployment.reference import Reference
from bundle.pyraseg.transforms.reader import MedicalImageReader
from tests.helpers.onnx_paths import kind_of, network, steps

TERMINOLOGY = {
    "liver": {"type": ["10200004", "SCT", "Liver"]},
    "spleen": {"type": ["78961009", "SCT", "Spleen"]},
}

PROPERTIES = {
    "name": "Small",
    "algorithm": "Pyraseg",
    "version": "1.2.3",
    "weights_sha256": "0123456789abcdef",
    "class_names": json.dumps(["background", "liver", "spleen"]),
    "terminology": json.dumps(TERMINOLOGY),
}


@dataclass(frozen=True)
class Exported:
    """A model file and the bundle's own inference: the labels of an image, slice by slice, as displayed."""

    path: Path
    network_path: Path
    truth: Callable[[object], np.ndarray]


def exported(folder: Path, preprocessing: Compose, *, rgb: bool = False, parts: tuple | None = None) -> Exported:
    """Export a small network with what is around it, by default `steps`."""
    parts = parts or steps(preprocessing)
    channels = {"Windowd": lambda w: len(w.windows), "StackContextSlicesd": lambda s: 2 * s.context_slices + 1}
    counts = [channels[type(s).__name__](s) for s in preprocessing.transforms if type(s).__name__ in channels]
    number = 3 if rgb else int(np.prod(counts))
    files = folder / "small.network.onnx", folder / "small.onnx"
    export(Parts(network(number), number, 3, *parts, kind_of(preprocessing)), *files, properties=PROPERTIES)
    load = LoadImaged("image", reader=MedicalImageReader(rgb=rgb), ensure_channel_first=True)
    reference = Reference(network(number), *parts, Decision())
    return Exported(files[1], files[0], lambda image: reference(load({"image": image})).classes)

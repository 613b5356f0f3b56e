# SPDX-License-Identifier: Apache-2.0
"""Bundles that clicks correct, as the interactive models that 3D Slicer and OHIF know: deepgrow and deepedit."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from torch import Tensor

from bundle.pyraseg.core import PyrasegError, Structures
from bundle.pyraseg_tools.monai_label.clicked_images import Asked, ClickedImage, clicks_by_label, clicks_in
from bundle.pyraseg_tools.monai_label.inference import Inference

#: Images that are kept, with what the network found in them.
IMAGES = 2
#: Options of MONAI Label's interactive models that mean nothing here.
UNUSED = ("slice", "roi", "reset_state")
#: Options of the file that a client gets.
RESULT = ("result_extension", "result_dtype", "result_compress")


class Looking(Inference):
    """The automatic answer of a network that clicks correct, with the logits that a correction begins from."""

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        super().__init__(path, conf, skip_writer=True)
        self._images: OrderedDict[tuple, tuple[ClickedImage, dict[str, Any]]] = OrderedDict()

    def run_inferer(self, data: dict[str, Any], *args: Any, **options: Any) -> dict[str, Any]:
        data = super().run_inferer(data, *args, **options)
        data["logits"] = data[self.output_label_key]
        return data

    def look(self, request: Mapping[str, Any]) -> tuple[ClickedImage, dict[str, Any]]:
        """Return an image and what is to be written about it; it is kept for the next clicks.

        Args:
            request: image and options of an inference.
        """
        image, weights = Path(str(request["image"])), self._check_model(request)
        options = {name: value for name, value in request.items() if name in ("device", "model_filename")}
        key = (image, image.stat().st_mtime_ns, weights.algorithm, *sorted(map(repr, options.items())))
        found = self._images.pop(key, None)
        if found is None:
            while len(self._images) >= IMAGES:
                self._images.popitem(last=False)
            found = self._opened({**options, "image": str(image)})
        self._images[key] = found  # the newest last
        return found

    def _opened(self, request: Mapping[str, Any]) -> tuple[ClickedImage, dict[str, Any]]:
        _, data = self(request)  # no file, and what would be written
        slab = self.bundle_config.get_parsed_content("slab_inferer", instantiate=True)
        network: Any = self._get_network(data["device"], data)  # a ClickNetwork
        pred, image = self.output_label_key, self.input_key

        def to_labels(logits: Tensor, shown: MetaTensor) -> Tensor:
            return slab.to_labels({pred: logits, image: shown})[pred].as_subclass(Tensor)

        clicked = ClickedImage(
            data[image],
            data["logits"],
            data[pred],
            network,
            Structures(self.bundle_config["class_names"]),
            to_labels,
        )
        return clicked, {name: value for name, value in data.items() if name not in (image, "original", "logits", pred)}

    def write(self, labels: MetaTensor, about: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[Any, dict]:
        """Write labels as a client wants them; return the path and what is told of them."""
        wanted = {name: request[name] for name in RESULT if name in request}
        path, told = self.writer({**about, **wanted, self.output_label_key: labels})
        return path, dict(told)


class ClickInference(InferTask):
    """Answer the clicks of clients; without any, the automatic result.

    Args:
        looking: the bundle, which all kinds share.
        kind: `DEEPGROW` takes points of one label, `foreground` and `background`, and returns this label alone, as 1;
            `DEEPEDIT` takes points of every label, by its name, and of `background`, and returns all labels.
    """

    def __init__(self, looking: Looking, kind: InferType) -> None:
        names = dict(looking.labels)
        super().__init__(
            type=kind,
            labels={"background": 0, **names} if kind == InferType.DEEPEDIT else names,  # a client can point at them
            dimension=looking.dimension,
            description=f"{looking.description}, corrected by clicks",
            config=looking.config(),
        )
        self.looking = looking
        self.names = names

    def config(self) -> dict[str, Any]:
        return self.looking.config()

    def is_valid(self) -> bool:
        return self.looking.is_valid()

    def __call__(self, request: Mapping[str, Any], callbacks: Mapping | None = None) -> tuple[Any, dict]:
        for name in UNUSED:
            if request.get(name):
                raise PyrasegError(f"{name} means nothing to this model, which takes points. Leave it out.")
        if request.get("save_label"):
            raise PyrasegError("What clicks corrected is a person's: it is submitted as a label. Leave save_label out.")
        image, about = self.looking.look(request)
        if self.type == InferType.DEEPGROW:
            structure = self._structure(request)
            labels = image.labels(clicks_in(request, structure), about=structure)
            labels = (labels == structure).to(torch.uint8)
        else:
            labels = image.labels(self._by_label(request, image), about=None)
        path, told = self.looking.write(labels, about, request)
        return path, {**told, "label_names": self.labels}

    def _structure(self, request: Mapping[str, Any]) -> int:
        """Return which structure is meant; clients that name none mean the only one.

        Raises:
            PyrasegError: there are several.
        """
        label = request.get("label")
        if label is None and len(self.names) > 1:
            raise PyrasegError(f"The model finds {', '.join(self.names)}. Say which label the points are of.")
        return self.names[next(iter(self.names)) if label is None else label]

    def _by_label(self, request: Mapping[str, Any], image: ClickedImage) -> Sequence[Asked]:
        if request.get("foreground"):
            raise PyrasegError(f"Points of a label have its name as their field: {', '.join(self.names)}.")
        return clicks_by_label(request, self.names, image)

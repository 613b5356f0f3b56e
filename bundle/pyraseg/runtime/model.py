# SPDX-License-Identifier: Apache-2.0
"""An exported model: the graph, and what it says of itself."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bundle.pyraseg.core import PyrasegError, Structures
from bundle.pyraseg.runtime.initializers import require_finite_graph

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from bundle.pyraseg.dicom import Purpose

#: Version of the metadata of a graph that gives classes, and of one that gives label values of regions.
FORMAT, REGION_FORMAT = "1", "2"
#: What stands in place of a class where the network's output is not finite.
NO_CLASS = 255
REMEDY = "Give the file that pyraseg export wrote."


class Model:
    """A whole-path graph in ONNX Runtime.

    Args:
        path: file that `pyraseg export` wrote.
        threads: how many threads the graph runs on; of a volume, how many slices are computed at a time.

    Raises:
        PyrasegError: there is no such file, or it is none of that kind.
    """

    def __init__(self, path: str | Path, *, threads: int) -> None:
        self.path, self.threads = Path(path), threads
        self.session = open_session(self.path, threads=threads, remedy=REMEDY)
        self.properties: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        known = self.properties.get("pyraseg_format") in (FORMAT, REGION_FORMAT)
        if not known or self.properties.get("content") != "path":
            found = (
                "it holds the network alone" if self.properties.get("content") == "network" else "it is of another kind"
            )
            raise PyrasegError(f"{path} is no model for whole images ({found}). {REMEDY}")
        if threads > 1 and self.recipe["image_kind"] == "volume":  # faster: some slices at a time, on one thread each
            self.session = open_session(self.path, threads=1, remedy=REMEDY)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Return what happens to an image; outside the graph `image_kind`, `context_slices`, `free_windows` matter."""
        return json.loads(self.properties["recipe"])

    def purpose(self, refuse: str | Sequence[str] | None = None) -> "Purpose":
        """Return what images the model is for.

        Args:
            refuse: see `Purpose`; None: as it has it.
        """
        from bundle.pyraseg.dicom import Purpose

        settings = json.loads(self.properties.get("settings", "{}"))
        said = {name: settings.get(name) for name in ("modality", "body_part", "plane")}
        pet_units = settings.get("pet_units", "stored")  # as it was when models did not say
        return Purpose(**said, pet_units=pet_units, **({} if refuse is None else {"refuse": refuse}))

    @cached_property
    def class_names(self) -> list[str]:
        """Return the names of all classes, background first."""
        return json.loads(self.properties["class_names"])

    @cached_property
    def structures(self) -> Structures:
        """Return what the graph finds, and what its label values mean: classes, or regions that overlap."""
        return Structures(self.class_names, self.regions)

    @property
    def regions(self) -> dict[str, list[str]] | None:
        """Return the classes of each region, of a model of regions."""
        return json.loads(self.properties.get("regions", "null"))

    @cached_property
    def terminology(self) -> dict[str, Any]:
        """Return the codes of the classes, for DICOM."""
        return json.loads(self.properties["terminology"])

    @property
    def algorithm(self) -> tuple[str, str]:
        """Return the name and the version of what segments, for the headers of what it writes."""
        version, weights = self.properties["version"], self.properties["weights_sha256"][:12]
        return self.properties["algorithm"], f"{version}, weights {weights}"

    def classes(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the label value of each pixel, (height, width) uint8, of one image as the graph's inputs name it.

        It is the class; of a model of regions which of them the pixel lies in, see `structures`.

        Raises:
            PyrasegError: the network's output is not finite.
        """
        found = self.session.run(["classes"], dict(feed))[0][0]
        if found.max() == NO_CLASS:
            raise PyrasegError(
                "the network's output is NaN or infinite, and makes no mask: the image holds values far from those of "
                f"the training, or the weights in {self.path} are damaged."
            )
        return found


def open_session(model: str | Path | bytes, *, threads: int, remedy: str) -> "InferenceSession":
    """Load a model from its file or its bytes.

    Args:
        model: what to load.
        threads: how many threads it runs on.
        remedy: what a user does to get a model that can be loaded.

    Raises:
        PyrasegError: ONNX Runtime is missing, there is no such file, it cannot be loaded, or weights are not finite.
    """
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise PyrasegError(f"There is no model at {model}. {remedy}")
    try:
        import onnxruntime
    except ImportError as error:
        raise PyrasegError("ONNX Runtime is missing: pip install onnxruntime.") from error
    require_finite_graph(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # nearly any type and text, depending on how a file is broken
        name = "The graph" if isinstance(model, bytes) else model
        raise PyrasegError(f"{name} cannot be loaded as an ONNX model. {remedy}") from error

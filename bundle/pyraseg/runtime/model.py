# SPDX-License-Identifier: Apache-2.0
"""An exported model: the graph, and what it says of itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bundle.pyraseg.core import PyrasegError, Structures
from bundle.pyraseg.runtime.guard import Guard
from bundle.pyraseg.runtime.tidying import Tidying

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from bundle.pyraseg.dicom import Purpose

#: Version of the metadata of a graph that gives classes, of one that gives label values of regions, and of one of
#: either kind whose recipe tidies labels up, or cuts photographs into tiles.
FORMAT, REGION_FORMAT, RECIPE_FORMAT = "1", "2", "3"
#: What a file may hold that segments images: a whole path, or a network for tiles with its recipe.
PATH, TILES = "path", "tiles"
#: Name of the graph's output that is what the network is shown, (views, C, W, H) float32, the image itself first.
SHOWN = "shown"
#: What stands in place of a class where the network's output is not finite.
NO_CLASS = 255
REMEDY = "Give the file that pyraseg export wrote."


class Model:
    """A whole-path graph, or a network for tiles of volumes or photographs, in ONNX Runtime.

    Args:
        path: file that `pyraseg export` wrote.
        threads: how many threads the graph runs on; of slices of a volume, how many are computed at a time.

    Raises:
        PyrasegError: there is no such file, it is none of that kind, or what its recipe needs is not installed.
    """

    #: Whether slices of a volume are computed some at a time, on one thread each.
    spreads_threads = True

    def __init__(self, path: str | Path, *, threads: int) -> None:
        self.path, self.threads = Path(path), threads
        self.session = open_session(self.path, threads=threads, remedy=REMEDY)
        self.properties: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        known = self.properties.get("pyraseg_format") in (FORMAT, REGION_FORMAT, RECIPE_FORMAT)
        if not known or self.properties.get("content") not in (PATH, TILES):
            found = (
                "it holds the network alone" if self.properties.get("content") == "network" else "it is of another kind"
            )
            raise PyrasegError(f"{path} is no model for whole images ({found}). {REMEDY}")
        self.tidying.require()
        by_slices = self.recipe["image_kind"] == "volume" and not self.sees_tiles
        if threads > 1 and by_slices and self.spreads_threads:  # faster
            self.session = open_session(self.path, threads=1, remedy=REMEDY)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Return what happens to an image.

        Outside the graph of a whole path, `image_kind`, `context_slices`, `free_windows` and `tidying` matter.
        """
        return json.loads(self.properties["recipe"])

    @property
    def sees_tiles(self) -> bool:
        """Return whether the network looks at tiles, of photographs or of volumes in three dimensions."""
        return self.properties["content"] == TILES

    @cached_property
    def tidying(self) -> Tidying:
        """Return what is tidied up of the labels, of whole images and volumes."""
        found = self.recipe.get("tidying")
        if found is None:  # an earlier file
            return Tidying()
        return Tidying(tuple(found["keep_largest"]), tuple(found["fill_holes"]), found["min_size"])

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

    @cached_property
    def guard(self) -> Guard | None:
        """Return what is known of the images that the model was trained on; None where the file says nothing."""
        text = self.properties.get("guard")
        return None if text is None else Guard.read(text, self.path)

    @property
    def algorithm(self) -> tuple[str, str]:
        """Return the name and the version of what segments, for the headers of what it writes."""
        version, weights = self.properties["version"], self.properties["weights_sha256"][:12]
        return self.properties["algorithm"], f"{version}, weights {weights}"

    def logits(self, tile: np.ndarray) -> np.ndarray:
        """Return the logits (K, w, h[, d]) of a tile (C, w, h[, d]).

        Raises:
            PyrasegError: they are not finite.
        """
        found = self.session.run(["logits"], {"image": tile[None]})[0][0]
        if not np.isfinite([found.min(), found.max()]).all():
            raise PyrasegError(self._not_finite)
        return found

    def classes(self, feed: Mapping[str, np.ndarray], see: Callable[[np.ndarray], object] | None = None) -> np.ndarray:
        """Return the label value of each pixel, (height, width) uint8, of one image as the graph's inputs name it.

        It is the class; of a model of regions which of them the pixel lies in, see `structures`.

        Args:
            feed: the inputs of the graph.
            see: is given what the network is shown, (C, W, H) float32.

        Raises:
            PyrasegError: the network's output is not finite.
        """
        labels, *shown = self.session.run(["classes"] if see is None else ["classes", SHOWN], dict(feed))
        if see is not None:
            see(shown[0][0])
        found = labels[0]
        if found.max() == NO_CLASS:
            raise PyrasegError(self._not_finite)
        return found

    @property
    def _not_finite(self) -> str:
        return (
            "the network's output is NaN or infinite, and makes no mask: the image holds values far from those of "
            f"the training, or the weights in {self.path} are damaged."
        )


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
    from bundle.pyraseg.runtime.initializers import require_finite_graph  # by protobuf, which comes with ONNX Runtime

    require_finite_graph(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Without VNNI, x86 adds two products of bytes in 16 bits, and what exceeds them is cut off: labels of an int8 model
    # would depend on the processor. ONNX Runtime can take the weights as unsigned there, which is exact.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # nearly any type and text, depending on how a file is broken
        name = "The graph" if isinstance(model, bytes) else model
        raise PyrasegError(f"{name} cannot be loaded as an ONNX model. {remedy}") from error

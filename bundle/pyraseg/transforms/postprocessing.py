# SPDX-License-Identifier: Apache-2.0
"""From class probabilities on the network's grid to a label map on the input's own, and what may be tidied up there.

Probabilities mean what they say by one temperature, fitted on validation and kept beside the weights.
"""

import json
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import Invertd, InvertibleTransform, MapTransform
from monai.transforms.utils import scale_affine
from monai.utils import TraceKeys
from torch import Tensor

from bundle.pyraseg.core import PyrasegError, Structures, file_digest, nearest_hint, write_json
from bundle.pyraseg.runtime import Tidying
from bundle.pyraseg.transforms.reader import geometry_of
from bundle.pyraseg.transforms.resampling import enlarge_photograph

logger = logging.getLogger(__name__)


def temperature_path(model_file: str | Path) -> Path:
    """Return where the temperature of a model is kept: `models/model.temperature.json` of `models/model.pt`."""
    return Path(model_file).with_suffix(".temperature.json")


def write_temperature(model_file: str | Path, temperature: float, **about: object) -> Path:
    """Write the temperature of the weights in `model_file`, with what else is to be known of it; return the path."""
    path = temperature_path(model_file)
    write_json(path, {"temperature": temperature, "weights_sha256": file_digest(model_file), **about})
    return path


def read_temperature(model_file: str | Path) -> float | None:
    """Return the temperature of the weights in `model_file`, or None where none was fitted to them.

    One that was fitted to other weights is told and not used: it would make probabilities wrong in silence.

    Raises:
        PyrasegError: the file holds no temperature, or there are no weights.
    """
    path = temperature_path(model_file)
    if not path.is_file():
        return None
    if not Path(model_file).is_file():
        raise PyrasegError(f"There are no weights at {model_file} for the temperature in {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        temperature, digest = float(content["temperature"]), content["weights_sha256"]
        if not 0 < temperature < float("inf"):
            raise ValueError(f"it is {temperature}")
    except (ValueError, KeyError, TypeError) as error:
        raise PyrasegError(
            f"{path} holds no temperature ({error}). Remove it, or fit it again: `calibrating`."
        ) from error
    if digest != file_digest(model_file):
        logger.warning("%s belongs to other weights and is not used: fit it again with `calibrating`.", path)
        return None
    return temperature


def soften(probabilities: Tensor, temperature: float, *, dim: int) -> Tensor:
    """Return softmax(log p / T) along `dim` (Guo et al., ICML 2017, eq. 9): which class is largest does not change.

    Of probabilities as they left the softmax this is the softmax of the logits over T. Applied to probabilities that
    were resampled since, it keeps their argmax, which a temperature before the resampling would not.
    """
    powers = probabilities.float() ** (1 / temperature)
    return powers / powers.sum(dim=dim, keepdim=True)


class TemperatureScaled(MapTransform):
    """Apply the temperature that was fitted to a model to its probabilities, (C, W, H[, D]); none leaves them alone.

    Args:
        keys: of the probabilities, on any grid.
        model_file: weights that made them; the temperature lies beside, see `temperature_path`.
        allow_missing_keys: skip keys that are not in the data.
    """

    def __init__(self, keys: KeysCollection, *, model_file: str | Path, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.model_file = model_file
        self._temperature: list[
            float | None
        ] = []  # read with the first case: a config is parsed before a model is there

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        if not self._temperature:
            self._temperature.append(read_temperature(self.model_file))
        (temperature,) = self._temperature
        if temperature is None:
            return dict(data)
        return {**data, **{key: soften(data[key], temperature, dim=0) for key in self.key_iterator(data)}}


class RequireFinited(MapTransform):
    """Refuse what a network made of an image where it is NaN or infinite: an argmax would make a mask of it.

    Args:
        keys: of the network's output, any shape; it is left alone.
        reference: key of the image, whose file the message names.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: in the call, some values are not finite.
    """

    def __init__(self, keys: KeysCollection, *, reference: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        for key in self.key_iterator(data):
            if not torch.stack(torch.aminmax(data[key].detach())).isfinite().all():
                image = data.get(self.reference)
                name = image.meta.get("filename_or_obj", "an image") if isinstance(image, MetaTensor) else "an image"
                raise PyrasegError(
                    f"The network's output for {name} is NaN or infinite, and makes no mask. If amp is on, set it to "
                    "false: numbers of half precision end at 65504. Otherwise the weights are of another network, "
                    "or of a training that ran away: lower its learning rates."
                )
        return dict(data)


#: Probability by which a class must stay below the background to be nowhere above it between pixels: interpolated
#: values of up to 1 are rounded by less than a tenth of it.
FAR_BELOW = 1e-5
#: Values on the grid of the input up to which several classes are brought there at a time.
FEW = 1 << 24


def _steps(image: MetaTensor) -> list[str]:
    return [step["class"] for step in image.applied_operations]


def keeps_slices(image: MetaTensor) -> bool:
    """Return whether the preprocessing of a volume only turned its slices and resized each by shares of its pixels."""
    return image.ndim == 4 and _steps(image) in (["OrientSlices"], ["OrientSlices", "ResampleSlices"])


def is_photograph(values: Tensor, image: MetaTensor) -> bool:
    """Return whether values (C, W', H') are on the grid of an image that was only resized."""
    return values.ndim == 3 and _steps(image) == ["ResizePhotograph"]


def _size_before(image: MetaTensor) -> tuple[int, int]:
    width, height, *_ = image.applied_operations[0][TraceKeys.ORIG_SIZE]
    return width, height


class InvertArgmaxd(MapTransform):
    """Bring class probabilities back onto the grid of the input, linearly, and keep the index of the largest.

    The same as MONAI's `Invertd` and `AsDiscreted(argmax=True)`, one class after the other: there is never more than
    two classes' worth of probabilities on the large grid at a time, and it takes a fifth of the time, for torch's
    argmax over the first axis is slow. A photograph that was only resized is done in bands: of hundreds of megapixels
    there is no more than the labels.

    Args:
        keys: probabilities, (classes, W', H'[, D']); they become (1, W, H[, D]) uint8 on the CPU.
        transform: the preprocessing that is to be undone.
        orig_keys: key of the image that went through it.
        allow_missing_keys: skip keys that are not in the data.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        transform: InvertibleTransform,
        orig_keys: str,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.orig_key = orig_keys
        self.invert = Invertd(self.keys, transform, orig_keys, nearest_interp=False, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{key: self.labels(data, key) for key in self.key_iterator(data)}}

    def inverted(self, values: Tensor, image: MetaTensor) -> MetaTensor:
        """Return values (1, W', H'[, D']) on the grid that an image had before the preprocessing."""
        key = self.keys[0]
        values = MetaTensor(values.as_subclass(Tensor))  # without metadata, which would be copied
        return self.invert({key: values, self.orig_key: image})[key]

    def slice_order(self, image: MetaTensor) -> tuple[Sequence[int], Any, Tensor] | None:
        """Return where the slices of a preprocessed volume come to lie on the grid of the input.

        Args:
            image: (C, W', H', D').

        Returns:
            The size (W, H, D) and the affine of that grid, and (D,): which slice of the image each slice there is. None
            where slices are added or mixed.
        """
        depth, steps = image.shape[3], image.applied_operations
        numbers = torch.arange(depth, dtype=torch.float32)
        if keeps_slices(image):
            small = MetaTensor(numbers.reshape(1, 1, 1, depth), affine=image.affine)
            small.applied_operations = [{**step, TraceKeys.ORIG_SIZE: (1, 1, depth)} for step in steps]
            order = self.inverted(small.as_tensor(), small).as_tensor()[0, 0, 0]
            return (
                (*_size_before(image), depth),
                steps[0][TraceKeys.EXTRA_INFO]["original_affine"],
                order.round().long(),
            )
        placed = self.inverted(numbers.to(image.device).expand(1, *image.shape[1:]), image)
        if placed.shape[-1] != depth:
            return None
        planes = placed[0].as_tensor()
        order = planes[0, 0].round()
        if max((planes.amax((0, 1)) - order).max(), (order - planes.amin((0, 1))).max()) > 0.01:
            return None
        return placed.shape[1:], placed.affine, order.long().cpu()

    def labels(self, data: Mapping[Hashable, Any], key: Hashable) -> MetaTensor:
        """Return the class indices for one key; of equal probabilities the first class counts, as for an argmax."""
        probabilities, image = data[key], data[self.orig_key]
        if is_photograph(probabilities, image):
            return in_bands(probabilities, image, _largest_of)

        classes = list(range(1, len(probabilities)))
        if keeps_slices(image):  # what is far below the background at all pixels is so between them
            near = (probabilities[1:] >= probabilities[:1] - FAR_BELOW).flatten(1).any(dim=1)
            classes = [index for index in classes if near[index - 1]]
        if not classes:
            labels = torch.zeros((1, probabilities.shape[3], *_size_before(image)[::-1]), dtype=torch.uint8).mT
            affine = image.applied_operations[0][TraceKeys.EXTRA_INFO]["original_affine"]
            return MetaTensor(labels.movedim(1, 3), meta={**image.meta, "affine": torch.as_tensor(affine)})
        first = self.inverted(probabilities[:1], image)
        largest = first.as_tensor().clone()
        labels = torch.zeros_like(largest, dtype=torch.uint8)
        at_a_time = max(1, FEW // first.numel())
        groups = [classes[start : start + at_a_time] for start in range(0, len(classes), at_a_time)]
        others = (
            (index, values[None])
            for group in groups
            for index, values in zip(group, self.inverted(probabilities[group], image).as_tensor(), strict=True)
        )
        return MetaTensor(_largest(largest, others, labels).cpu(), meta=first.meta)


def _largest(largest: Tensor, others: Iterable[tuple[int, Tensor]], labels: Tensor) -> Tensor:
    """Write into labels, zeros, the number of the other that is larger than all before; `largest` is used up."""
    for index, probability in others:
        labels.masked_fill_(probability > largest, index)
        torch.maximum(largest, probability, out=largest)
    return labels


def in_bands(probabilities: Tensor, image: MetaTensor, decide: Callable[[Tensor], Tensor]) -> MetaTensor:
    """Return the labels of a photograph on the grid that it had before it was resized.

    Args:
        probabilities: (C, W', H').
        image: with what was done to it.
        decide: makes labels (1, W, h) uint8 of a band of probabilities (C, W, h) on that grid.
    """
    width, height = image.applied_operations[0][TraceKeys.ORIG_SIZE]
    labels = torch.zeros((1, height, width), dtype=torch.uint8).mT
    values = torch.as_tensor(probabilities).as_subclass(Tensor).float()
    for columns, band in enlarge_photograph(values, (height, width)):
        labels[:, columns] = decide(band).cpu()
    affine = image.affine @ torch.as_tensor(to_affine_nd(3, scale_affine(image.shape[1:], (width, height))))
    return MetaTensor(labels, meta={**image.meta, "affine": affine})


def _largest_of(probabilities: Tensor) -> Tensor:
    """Return the class indices (1, ...) of probabilities (C, ...)."""
    first, *others = probabilities.split(1)
    return _largest(first.clone(), enumerate(others, start=1), torch.zeros_like(first, dtype=torch.uint8))


class TidyLabelsd(MapTransform):
    """Tidy up label maps by connected components, as the runtime does, see `runtime.Tidying`.

    (MONAI's `RemoveSmallObjectsd` takes all voxels of a class for one object where a label map has several classes.)

    Args:
        keys: label values of classes or of regions, (1, W, H[, D]) uint8, with their affine.
        class_names: names of all classes, background first.
        regions: the classes of each region, where they overlap, see `core.Structures`.
        keep_largest: names of the classes (or regions) of which the largest component alone stays.
        fill_holes: names of those whose holes are filled.
        min_size: mm³ (pixels of a photograph) below which a component of any of them becomes background; 0: none does.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: there is no class or region of a name.

    >>> labels = MetaTensor(torch.tensor([[[0, 2, 0, 1, 1, 1]]], dtype=torch.uint8))
    >>> tidy = TidyLabelsd("pred", class_names=["background", "a", "b"], min_size=2)
    >>> tidy({"pred": labels})["pred"].flatten().tolist()
    [0, 0, 0, 1, 1, 1]
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        class_names: Sequence[str],
        regions: Mapping[str, Sequence[str]] | None = None,
        keep_largest: Sequence[str] = (),
        fill_holes: Sequence[str] = (),
        min_size: float = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.structures = Structures(class_names, regions)
        largest, filled = (_places(names, self.structures.names) for names in (keep_largest, fill_holes))
        self.tidying = Tidying(largest, filled, min_size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.tidied(data[key]) for key in self.key_iterator(data)}}

    def tidied(self, labels: MetaTensor) -> MetaTensor:
        """Return a label map that is tidied up."""
        geometry = geometry_of(labels)
        blocks = None if geometry is None else [(block, part.voxel_volumes) for block, part in geometry.parts()]
        values = self.tidying(np.asarray(labels[0]), self.structures, blocks)
        return MetaTensor(torch.from_numpy(values)[None], meta=labels.meta)


def _places(names: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """Return the places of structures, behind the background."""
    if unknown := [name for name in names if name not in known[1:]]:
        raise PyrasegError(
            f"There is nothing called {unknown[0]!r} to tidy up. The network finds {', '.join(known[1:])}."
            f"{nearest_hint(unknown[0], known[1:])}"
        )
    return tuple(known.index(name) for name in names)

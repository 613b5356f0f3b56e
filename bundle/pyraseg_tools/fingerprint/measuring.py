# SPDX-License-Identifier: Apache-2.0
"""Measure the cases of a data set: sizes, spacings, intensities under the labels, pixels of each class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from bundle.pyraseg.core import PyrasegError, require_mendable, valid_percentiles
from bundle.pyraseg.data import count_label
from bundle.pyraseg.datalists import case_names
from bundle.pyraseg.transforms import UNKNOWN, OrientSlices
from bundle.pyraseg_tools.fingerprint.units import units_of

#: Percentiles of the intensities under the labels; the outer two are those of nnU-Net's fingerprint (Isensee et al.,
#: "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nat Methods 2021).
PERCENTILES = (0.5, 50.0, 99.5)
SAMPLES = 10_000  # intensities kept of each case and class, so that no large case outweighs the others
AIR = -500.0  # HU, between air and any tissue
DARK = 0.1  # of the way from the 0.5th to the 99.5th percentile of an image without units: what surrounds the body
MARGIN = 2  # pixels around the body that still count as it


@dataclass(frozen=True)
class CaseFingerprint:
    """Hold what is measured of one case, on the voxels of its files, with slices as a radiologist sees them.

    Attributes:
        item: of the data list.
        name: path of the image below the data set's folder.
        part: part of the split.
        fault: why the case cannot be used, or ""; where there is one, nothing below is known.
        size: (W, H) or (W, H, D).
        spacing: mm along the same axes; None without patient geometry.
        channels: 1 for gray, 3 for RGB, whose mean stands for its intensity.
        modality, units: "HU" for CT, else those of a DICOM header or "".
        evidence: by what units and modality are known, in words.
        extent: smallest value, 0.5th and 99.5th percentile and largest value of the image.
        foreground: the PERCENTILES of the intensities under the labels; None where no pixel is labeled.
        ranks: percent of the image's pixels below the first, and not above the last, of those percentiles.
        counts: (images, K), pixels of each class in each slice, or in the one image.
        outside: share of the labeled pixels that lie outside the body.
        center: mean place of the labeled pixels, from 0 to 1 along each axis.
        samples: for each class, and for UNKNOWN, up to SAMPLES of its intensities.
    """

    item: Mapping[str, str]
    name: str
    part: str
    fault: str = ""
    size: tuple[int, ...] = ()
    spacing: tuple[float, ...] | None = None
    channels: int = 1
    modality: str = ""
    units: str = ""
    evidence: str = ""
    extent: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    foreground: tuple[float, float, float] | None = None
    ranks: tuple[float, float] | None = None
    counts: np.ndarray = field(default_factory=lambda: np.zeros((0, 1), np.int64), repr=False)
    outside: float = 0.0
    center: tuple[float, ...] = ()
    samples: Mapping[int, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def is_empty(self) -> bool:
        """Return whether the case can be used and no pixel of it is labeled."""
        return not self.fault and self.foreground is None

    @property
    def is_constant(self) -> bool:
        """Return whether the case can be used and its image has one value everywhere."""
        return not self.fault and self.extent[0] == self.extent[-1]

    @property
    def empty_slices(self) -> int:
        """Return how many slices show no foreground."""
        return int((self.counts[:, 1:].sum(axis=1) == 0).sum())


def measure_cases(
    cases: Mapping[str, Sequence[Mapping[str, str]]],
    load: Callable[[dict], dict],
    *,
    root: Path,
    classes: int,
    num_workers: int = 0,
    image_kind: str = "volume",
    modality: str | None = None,
) -> list[CaseFingerprint]:
    """Measure every case of every part of a split.

    Args:
        cases: the parts, as `load_cases` returns them.
        load: {"image": path, "label": path} -> image (C, W, H[, D]) in its own units, label (1, W, H[, D]) with class
            indices and, where nobody has labeled, `UNKNOWN`. What it refuses becomes the fault of the case.
        root: folder of the data set.
        classes: number of classes, background among them.
        num_workers: processes that share the work.
        image_kind: "volume", "projection" or "photograph".
        modality: that a user states for images without a DICOM header; CT is in HU.
    """
    items = [(part, item) for part, items in cases.items() for item in items]
    todo = _Cases(items, case_names([item for _, item in items], root), load, classes, image_kind, modality)
    loader = DataLoader(todo, batch_size=None, num_workers=min(num_workers, len(todo)))
    return list(tqdm(loader, desc="Measuring cases", unit="case", disable=None))


class _Cases(Dataset):
    def __init__(
        self,
        items: list[tuple[str, Mapping]],
        names: list[str],
        load: Callable[[dict], dict],
        classes: int,
        image_kind: str,
        modality: str | None,
    ) -> None:
        self.items = items
        self.names = names
        self.load = load
        self.options = {"classes": classes, "image_kind": image_kind, "modality": modality}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> CaseFingerprint:
        part, item = self.items[index]
        known = {"item": item, "part": part, "name": self.names[index]}
        try:
            return CaseFingerprint(**known, **measure(*load_upright(self.load, item), **self.options))
        except Exception as error:  # MONAI's transforms wrap what they raise
            return CaseFingerprint(**known, fault=str(require_mendable(error)))


def load_upright(load: Callable[[dict], dict], item: Mapping[str, str]) -> tuple[MetaTensor, MetaTensor]:
    """Return image and label of a case, its slices turned the way a radiologist sees them; photographs lie that way."""
    loaded = load(dict(item))
    image = loaded["image"][:1] if "sequences" in loaded["image"].meta else loaded["image"]
    return OrientSlices()(image), OrientSlices()(loaded["label"])


def measure(
    image: MetaTensor, label: MetaTensor, *, classes: int, image_kind: str = "volume", modality: str | None = None
) -> dict[str, Any]:
    """Return what a `CaseFingerprint` holds of an image (C, W, H[, D]) and its label (1, W, H[, D]).

    Args:
        image: in its own units.
        label: with class indices.
        classes: how many, background among them.
        image_kind: "volume", "projection" or "photograph"; a volume alone may be CT by its values.
        modality: that a user states for images without a DICOM header.

    Raises:
        PyrasegError: the label has several channels, or values that are no class.
    """
    where = str(label.meta.get("filename_or_obj", "a label"))
    if len(label) != 1:
        raise PyrasegError(f"{where} has {len(label)} channels. Classes that overlap have no fingerprint yet.")
    gray, indices = np.asarray(image, dtype=np.float32).mean(axis=0), np.asarray(label)[0]
    padding = int(image.meta.get("padding", 0))
    header = {name: str(image.meta.get(name, "")) for name in ("modality", "units")}
    if image_kind == "volume" and len(image) == 1:
        units, modality, evidence = units_of(gray, **header, stated=modality)
    else:
        units, modality, evidence = header["units"], header["modality"], ""
    random = np.random.default_rng(0)
    known = {
        "size": gray.shape,
        "spacing": _spacing(image, image_kind),
        "channels": len(image),
        "modality": modality,
        "units": units,
        "evidence": evidence,
        "extent": tuple(valid_percentiles(gray, (0, PERCENTILES[0], PERCENTILES[-1], 100), padding=padding).tolist()),
        "counts": count_label(indices, classes, ignore_index=UNKNOWN, path=where),
        "samples": {int(v): random.permutation(gray[indices == v])[:SAMPLES] for v in np.unique(indices)},
    }
    marked = (indices > 0) & (indices != UNKNOWN)
    if not marked.any():
        return known
    foreground = np.percentile(gray[marked], PERCENTILES)
    below = np.count_nonzero(gray < foreground[0]), np.count_nonzero(gray <= foreground[-1])
    return known | {
        "foreground": tuple(foreground.tolist()),
        "ranks": tuple(max(0.0, 100 * (int(count) - padding) / (gray.size - padding)) for count in below),
        "outside": float((marked & ~body(gray, units, padding)).sum() / marked.sum()),
        "center": tuple((np.argwhere(marked).mean(axis=0) / np.maximum(np.array(gray.shape) - 1, 1)).tolist()),
    }


def body(gray: np.ndarray, units: str, padding: int = 0) -> np.ndarray:
    """Return where the body is in an image (W, H[, D]): what is not dark, with the holes of each slice filled.

    Dark is air for HU, else the lowest tenth of the range of the image. Lungs and the like are holes, and so belong to
    the body; a few pixels around it count as well. So many pixels are `padding`, of the smallest value.
    """
    low, high = valid_percentiles(gray, (PERCENTILES[0], PERCENTILES[-1]), padding=padding)
    bright = gray > (AIR if units == "HU" else low + DARK * (high - low))
    planes = np.moveaxis(bright, 2, 0) if bright.ndim == 3 else bright[None]
    filled = [ndimage.binary_dilation(ndimage.binary_fill_holes(plane), iterations=MARGIN) for plane in planes]
    return np.moveaxis(np.stack(filled), 0, 2) if bright.ndim == 3 else filled[0]


def _spacing(image: MetaTensor, image_kind: str) -> tuple[float, ...] | None:
    if image_kind != "volume" or not image.meta.get("has_geometry", image.ndim == 4):
        return None
    return tuple(round(float(pixel), 6) for pixel in image.pixdim)

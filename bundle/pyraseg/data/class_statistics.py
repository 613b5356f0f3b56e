# SPDX-License-Identifier: Apache-2.0
"""How many pixels each class has in the labels, and the class weights of a loss that follow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle.pyraseg.core import PyrasegError

#: The ways to weigh classes, see `class_weights`.
METHODS = ("inverse_frequency", "median_frequency")


@dataclass(frozen=True)
class ClassCounts:
    """Pixels of K classes over a list of cases; the arrays have shape (K,) and type int64.

    Attributes:
        class_names: background first.
        pixels: pixels (voxels) of each class.
        images: number of images that hold the class.
        pixels_of_images: pixels of any class in those images.
        annotated_images: number of images that were annotated for the class: the background in all.
        annotated_pixels: pixels of any class in those images.
    """

    class_names: tuple[str, ...]
    pixels: np.ndarray
    images: np.ndarray
    pixels_of_images: np.ndarray
    annotated_images: np.ndarray
    annotated_pixels: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Return the share of each class in the pixels of the images that were annotated for it, (K,); 0 of none."""
        return np.divide(self.pixels, self.annotated_pixels, out=np.zeros(len(self.pixels)), where=self.pixels > 0)

    @property
    def absent(self) -> list[str]:
        """Return the names of the classes without a pixel."""
        return [name for name, pixels in zip(self.class_names, self.pixels, strict=True) if not pixels]


def count_label(label: np.ndarray, classes: int, *, ignore_index: int | None = None, path: str) -> np.ndarray:
    """Return how many pixels each class has in a label, (images, K) int64; every slice of a volume is an image.

    Args:
        label: (W, H[, D]), class indices.
        classes: their number, background among them.
        ignore_index: value that is no class; its pixels are counted nowhere.
        path: of the label, for messages.

    Raises:
        PyrasegError: the label holds something else than the classes.
    """
    planes = np.moveaxis(label, 2, 0) if label.ndim == 3 else [label]
    return np.stack([_histogram(plane, classes, ignore_index, path) for plane in planes])


def sum_counts(counts: np.ndarray, class_names: Sequence[str], annotated: np.ndarray | None = None) -> ClassCounts:
    """Add up the counts of `count_label`, (images, K), of any number of labels.

    Args:
        counts: of the images.
        class_names: background first.
        annotated: which classes each image was annotated for, (images, K) bool; None for all. An image counts nowhere
            for another class, whose pixels in it are among those of the background.

    Raises:
        PyrasegError: nothing at all was counted.
    """
    if not counts.any():
        raise PyrasegError(f"{len(counts)} labels or label slices have no pixel of any class.")
    holds = counts > 0
    annotated = np.ones_like(holds) if annotated is None else annotated
    total = counts.sum(axis=1, keepdims=True)
    return ClassCounts(
        tuple(class_names),
        counts.sum(axis=0),
        holds.sum(axis=0),
        (total * holds).sum(axis=0),
        annotated.sum(axis=0),
        (total * annotated).sum(axis=0),
    )


def _histogram(label: np.ndarray, classes: int, ignore_index: int | None, path: str) -> np.ndarray:
    values = label.ravel() if ignore_index is None else label[label != ignore_index]
    indices = values.astype(np.int64)
    if indices.size and ((indices != values).any() or indices.min() < 0 or indices.max() >= classes):
        raise PyrasegError(
            f"The label {path} holds values from {values.min():g} to {values.max():g}, but classes are integers from "
            f"0 to {classes - 1}. Correct the label or class_names."
        )
    return np.bincount(indices, minlength=classes)


def class_weights(
    counts: ClassCounts, *, method: str = "inverse_frequency", max_ratio: float | None = None
) -> list[float]:
    """Return one weight a class, of mean 1: the rarer a class, the larger.

    "inverse_frequency" is 1 / frequency, the frequency being the class's share of all pixels, or of those of the images
    that were annotated for it. "median_frequency" is the
    median of the frequencies / frequency, the frequency being the class's share of the pixels of those images that
    hold it (Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-Scale
    Convolutional Architecture", ICCV 2015); the median is a common factor and drops out of weights of mean 1. It does
    not raise a class for being in few images.

    An absent class, whose weight would be infinite, has the largest weight of the classes that are present. With
    `max_ratio`, no weight is more than that many times the smallest.

    Raises:
        PyrasegError: there is no such method, or max_ratio is below 1.

    >>> of_label = count_label(np.array([[0, 0, 0, 1]]), 2, path="label.png")
    >>> counts = sum_counts(of_label, ["background", "lesion"])
    >>> class_weights(counts)
    [0.5, 1.5]
    """
    if method not in METHODS:
        raise PyrasegError(f"There is no method {method!r} for class weights; there are {', '.join(METHODS)}.")
    if max_ratio is not None and not max_ratio >= 1:
        raise PyrasegError(f"The largest ratio of two class weights must be at least 1, got {max_ratio}.")
    present = counts.pixels > 0
    total = counts.annotated_pixels if method == "inverse_frequency" else counts.pixels_of_images
    weights = np.divide(total, counts.pixels, out=np.zeros(len(present)), where=present)
    weights[~present] = weights.max()
    if max_ratio is not None:
        weights = np.minimum(weights, max_ratio * weights.min())
    return (weights / weights.mean()).tolist()

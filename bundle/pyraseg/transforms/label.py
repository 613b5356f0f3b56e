# SPDX-License-Identifier: Apache-2.0
"""Load a label onto the grid of its image, by geometry."""

from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.pyraseg.core import ITK, NIFTI, PHOTOGRAPH, PyrasegError, Structures, tell, volume_count, without_suffix
from bundle.pyraseg.dicom import ChosenPath, DicomImage
from bundle.pyraseg.labels import (
    DRAWN_ON,
    Canvas,
    ClassTable,
    Region,
    annotated_classes,
    color_name,
    colors_in,
    read_dicom_label,
    read_painted,
    refuse_others,
    slicer_segments,
    values_listed,
)
from bundle.pyraseg.transforms.label_grid import Target, onto_grid
from bundle.pyraseg.transforms.reader import MedicalImageReader

#: How far a stored number may be from the whole number that it stands for, and from where on that is told.
NEARLY_WHOLE, ROUNDING = 1e-3, 1e-5
#: What a loaded label holds where the class is unknown, as in Pascal VOC's masks: give it to a loss as ignore_index.
UNKNOWN = 255
FILES = NIFTI + ITK + PHOTOGRAPH
#: What black is called in label_names.
BLACK = color_name(0)

#: A label's path, or one for each class.
LabelPath = str | PathLike | Mapping[str, str | PathLike]


def label_files(label: LabelPath) -> list[str]:
    """Return the paths of a label: one, or those of a mask for each class."""
    return [str(path) for path in (label.values() if isinstance(label, Mapping) else [label])]


class LabelReader:
    """Read a label of any format as class indices on the voxels of an image.

    Volumes are matched in patient coordinates: a NIfTI, NRRD or MetaImage label may be stored with other axes or flips
    than its image, of either handedness; a DICOM SEG may hold its frames in any order, orientation and crop; contours
    of an RTSTRUCT are filled on the slices in whose planes they lie. Nothing is resampled: a label on another grid is
    refused, and so is a DICOM label that refers to another series. Photographs are matched by size, image and label as
    they are shown, each by its own EXIF orientation. Colors of a label are names such as "#ff0000", which `label_names`
    may give to a class; with two classes, a single color beside black is the second one.

    One path is one label, or a folder with one DICOM label, or a folder with one mask for each class, the names of the
    files being those of the classes. A mapping from class names to paths does the same without a folder.

    Args:
        class_names: names of all classes, background first. Values of a label map are indices into them; segments, ROIs
            and files are matched by their names, without regard to case.
        label_names: what else each class may be called, coded or valued: see `ClassTable`.
        overlap_order: classes that may overlap, the later one being kept. All others are an error where they do.
        mask_value: value that stands for class 1 in binary masks, usually 255. Values other than 0 and this one are an
            error, unless a threshold is given. In a mask for each class it stands for the class; without it, that is
            the one value besides 0.
        threshold: values from here on are class 1 and smaller ones background, for masks that a lossy format or a
            resampling has blurred.
        unknown_value: value of a file for pixels that nobody has labeled; they become `UNKNOWN`. Losses leave them
            out by their `ignore_index`, samplers and scores always.
        fraction: a pixel of a FRACTIONAL DICOM SEG belongs to a segment from this share of its maximum on.
        drawn_on: what a DICOM label must share with its image: "series", or "frame_of_reference" to take one that was
            drawn on another series, such as another reconstruction.

    Raises:
        PyrasegError: an option cannot be, or (when reading) the label cannot be read, lies on another grid, or holds a
            class that is not declared.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        label_names: Mapping[str, Sequence] | None = None,
        overlap_order: Sequence[str] | None = None,
        mask_value: int | None = None,
        threshold: float | None = None,
        unknown_value: int | None = None,
        fraction: float = 0.5,
        drawn_on: str = "series",
    ) -> None:
        if not 0 < fraction <= 1:
            raise PyrasegError(f"fraction is a share of the maximum, above 0 and up to 1, not {fraction}.")
        if drawn_on not in DRAWN_ON:
            raise PyrasegError(f"drawn_on is {drawn_on!r}; it can be {' or '.join(map(repr, DRAWN_ON))}.")
        self.table = ClassTable(class_names, label_names, overlap_order)
        self.mask_value = mask_value
        self.threshold = threshold
        self.unknown_value = unknown_value
        self.fraction = fraction
        self.drawn_on = drawn_on

    def read(self, path: LabelPath, image: MetaTensor | DicomImage, *, drawn_on: str | None = None) -> np.ndarray:
        """Return the label on the grid of a loaded image, (W, H[, D]) uint8.

        For a DICOM series as `read_series` returned it, that is the transpose of its pixels (slices, rows, columns).

        Args:
            path: of the label.
            image: that it belongs to.
            drawn_on: for this label alone.
        """
        target = Target.of(image)
        label = self._for(drawn_on)._read(path, target)
        return label.reshape(target.shape if isinstance(image, DicomImage) else tuple(image.shape[1:]))

    def _for(self, drawn_on: str | None) -> "LabelReader":
        """Return the reader of one label, of which something else is said than of all."""
        if not drawn_on or drawn_on == self.drawn_on:
            return self
        other = copy(self)
        other.drawn_on = drawn_on
        return other

    def _read(self, path: LabelPath, target: Target) -> np.ndarray:
        if isinstance(path, Mapping):
            if not path:
                raise PyrasegError("The data list has a label without a mask for any class. Correct its entry.")
            return self._from_masks({name: Path(file) for name, file in path.items()}, target, "The data list")
        path = Path(path)
        if not path.exists():
            raise PyrasegError(f"There is no label at {path}. Correct the path.")
        if not path.is_dir():
            return self._from_file(path, target)
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        masks = {without_suffix(file.name): file for file in files if file.name.lower().endswith(FILES)}
        if len(files) == 1 and not masks:
            return self._from_file(files[0], target)
        if not files or len(masks) != len(files):
            names = ", ".join(file.name for file in files[:6]) or "nothing"
            raise PyrasegError(
                f"The folder of a label holds one DICOM label, or one mask for each class, but {path} holds {names}. "
                "Give the file of the label."
            )
        return self._from_masks(masks, target, f"The folder {path}")

    def _from_file(self, path: Path, target: Target) -> np.ndarray:
        if not path.name.lower().endswith(FILES):
            return self._from_dicom(path, target)
        if path.name.lower().endswith(PHOTOGRAPH):
            values, colored = self._painted(path, target)
            if colored:
                return self._of_colors(values, path)
        else:
            values, meta = stored_label(path, phase=target.phase)
            if "segments" in meta:
                return self._from_segments(values, meta, target, path)
            values = onto_grid(values, meta, target, path)
        if self.unknown_value is None:
            return self._to_classes(values, path)
        unknown = values == self.unknown_value
        return np.where(unknown, np.uint8(UNKNOWN), self._to_classes(np.where(unknown, 0, values), path))

    def _from_dicom(self, path: Path, target: Target) -> np.ndarray:
        if target.slices is None:
            raise PyrasegError(
                f"The DICOM label {path} needs a DICOM series as its image; a file of another format is none."
            )
        options = {"fraction": self.fraction, "drawn_on": self.drawn_on}
        return read_dicom_label(path, target.slices, self.table, **options).transpose(2, 1, 0).reshape(target.shape)

    def _from_masks(self, files: Mapping[str, Path], target: Target, where: str) -> np.ndarray:
        """Put one mask for each class together; keys are what the table knows."""
        regions = {number: Region(name) for number, name in enumerate(files)}
        classes = self.table.indices(regions, where, "masks")
        canvas = Canvas(self.table, target.shape, where)
        for number, path in enumerate(files.values()):
            if classes[number]:
                canvas.paint(classes[number], np.nonzero(self._is_class(*self._values(path, target), path)))
        return canvas.finished()

    def _from_segments(self, values: np.ndarray, meta: Mapping[str, Any], target: Target, path: Path) -> np.ndarray:
        """Put the segments of 3D Slicer together, by their names and codes as those of a DICOM SEG."""
        where = f"The segmentation {path}"
        layers = np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]
        segments = slicer_segments(meta["segments"], len(layers), where)
        classes = self.table.indices({n: segment.region for n, segment in segments.items()}, where, "segments")
        canvas = Canvas(self.table, target.shape, where)
        for number, layer in enumerate(layers):
            here = {n: segment.value for n, segment in segments.items() if segment.layer == number}
            found, counts = np.unique(layer, return_counts=True)
            nameless = [pair for pair in zip(found, counts, strict=True) if pair[0] not in (0, *here.values())]
            if nameless:
                raise PyrasegError(
                    f"{where} holds the values {values_listed(nameless, 'voxels')}, which its header does not name. "
                    "Save it again in 3D Slicer."
                )
            laid = onto_grid(layer, meta, target, path)
            for n, value in here.items():
                if classes[n]:
                    canvas.paint(classes[n], np.nonzero(laid == value))
        return canvas.finished()

    def _values(self, path: Path, target: Target) -> tuple[np.ndarray, bool]:
        """Return the numbers of a label on the grid of its image, and whether they are colors."""
        if path.name.lower().endswith(PHOTOGRAPH):
            return self._painted(path, target)
        return onto_grid(*stored_label(path, phase=target.phase), target, path), False

    def _painted(self, path: Path, target: Target) -> tuple[np.ndarray, bool]:
        if not path.is_file():
            raise PyrasegError(f"There is no label at {path}. Correct the path.")
        painted = read_painted(path, mask_value=self.mask_value)
        if painted.contradicts_index and len(self.table.class_names) == 2:
            raise PyrasegError(
                f"The mask {path} has a palette that shows its index 0 in a color and another index black, so the "
                "two disagree about which is the background. Save it as gray values."
            )
        return onto_grid(painted.values.T, {}, target, path), painted.colored

    def _of_colors(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Return the class of each color; black is background, unless label_names has it."""
        colors = colors_in(values, path)
        if BLACK in self.table.names:
            colors = [0, *colors]
        regions = {color: Region(color_name(color)) for color in colors}
        if len(colors) == 1 and len(self.table.class_names) == 2 and self.table.index_of(regions[colors[0]]) is None:
            return (values == colors[0]).astype(np.uint8)
        classes = self.table.indices(regions, f"The label {path}", "colors")
        label = np.zeros(values.shape, np.uint8)
        for color, index in classes.items():
            label[values == color] = index
        return label

    def _is_class(self, values: np.ndarray, colored: bool, path: Path) -> np.ndarray:
        """Return where a mask of one class holds it, bool."""
        if colored:
            colors = colors_in(values, path)
            if len(colors) > 1:
                names = ", ".join(map(color_name, colors[:8]))
                raise PyrasegError(f"The mask {path} has several colors, {names}, and is of one class. Correct it.")
            return values > 0
        if self.threshold is not None:
            return values >= self.threshold
        found = np.unique(values[values != 0])
        expected = found[:1] if self.mask_value is None else [self.mask_value]
        odd = np.setdiff1d(found, expected)
        if len(odd):
            raise PyrasegError(
                f"The mask {path} holds the values {', '.join(f'{value:.8g}' for value in odd[:8])} beside 0 and "
                f"{expected[0]:g}. Correct the mask, or set a threshold."
            )
        return values != 0

    def _to_classes(self, values: np.ndarray, path: Path) -> np.ndarray:
        if self.threshold is None and self.mask_value is None:
            return self.table.classes_of(values, path)
        return self._is_class(values, False, path).astype(np.uint8)


class LoadLabeld(MapTransform):
    """Load labels as (1, W, H[, D]) uint8 on the voxels of the image that they belong to.

    In the place of the names that a data list has under "annotated" it leaves which classes were, (K,) bool; all where
    there are none. A label with another class is refused. What it has under "drawn_on" holds for the case alone.

    Args:
        keys: labels (a path, a folder, or paths by class names), replaced by the loaded arrays.
        reference: key of the loaded image.
        allow_missing_keys: skip keys that are not in the data.
        class_names, label_names, overlap_order, mask_value, threshold, unknown_value, fraction, drawn_on: see
            `LabelReader`.

    Raises:
        PyrasegError: see `LabelReader`, or the label holds a class that the case was not annotated for.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        class_names: Sequence[str],
        label_names: Mapping[str, Sequence] | None = None,
        overlap_order: Sequence[str] | None = None,
        reference: str = "image",
        mask_value: int | None = None,
        threshold: float | None = None,
        unknown_value: int | None = None,
        fraction: float = 0.5,
        drawn_on: str = "series",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = reference
        self.reader = LabelReader(
            class_names=class_names,
            label_names=label_names,
            overlap_order=overlap_order,
            mask_value=mask_value,
            threshold=threshold,
            unknown_value=unknown_value,
            fraction=fraction,
            drawn_on=drawn_on,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        options = {"drawn_on": data.get("drawn_on")}
        labels = {key: self.load(data[key], data[self.reference], **options) for key in self.key_iterator(data)}
        image = str(data[self.reference].meta.get("filename_or_obj", "it"))
        item = {"image": image, "annotated": data.get("annotated")}
        class_names = self.reader.table.class_names
        annotated = torch.from_numpy(annotated_classes(item, class_names))
        if not annotated.all():
            for key, label in labels.items():
                refuse_others(np.unique(label), {**item, "label": data[key]}, class_names)
        return {**data, **labels, "annotated": annotated}

    def load(self, path: LabelPath, image: MetaTensor, *, drawn_on: str | None = None) -> MetaTensor:
        """Return the label at `path` on the grid of `image` (C, W, H[, D])."""
        label = torch.from_numpy(np.ascontiguousarray(self.reader.read(path, image, drawn_on=drawn_on)))[None]
        return MetaTensor(label, affine=image.affine, meta={"filename_or_obj": label_files(path)[0]})


def only_annotated(
    labels: torch.Tensor, annotated: torch.Tensor | None, structures: Structures | None = None
) -> torch.Tensor:
    """Return class indices in which classes that were not annotated are background; None for all that there are.

    With the `structures` of overlapping regions, labels are their values, and lose the regions that were not annotated.

    >>> only_annotated(torch.tensor([0, 1, 2]), torch.tensor([True, False, True]))
    tensor([0, 0, 2])
    """
    if annotated is None or annotated.all():
        return labels
    if structures is not None and structures.overlapping:
        known = structures.annotated(annotated.numpy(force=True))[1:].tolist()
        return labels & sum(1 << place for place, there in enumerate(known) if there)
    return torch.where(annotated.to(labels.device)[labels.long()], labels, 0)


def stored_label(path: Path, *, phase: int = 0) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a volume's label as its file stores it, numbers that are meant to be whole being so, and its metadata.

    Args:
        path: of the file.
        phase: of the image that it is for, from 1, or 0; a file of several volumes has one for each phase.

    Raises:
        PyrasegError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise PyrasegError(f"There is no label at {path}. Correct the path.")
    several = phase and path.name.lower().endswith(NIFTI) and volume_count(path) > 1
    file = ChosenPath(path, phase=str(phase)) if several else path
    array, meta = MedicalImageReader(label=True).get_data([file])
    return whole_numbers(np.asarray(array), path, step=meta.get("step", 1.0)), meta


def whole_numbers(values: np.ndarray, path: Path, *, step: float = 1.0) -> np.ndarray:
    """Return numbers as the whole numbers that they stand for, where they are no further from them than `NEARLY_WHOLE`.

    A file that stores whole numbers in steps of less than 1, by a factor in its header, cannot hold all of them: there
    a number may be half a step away. What was rounded by more than the arithmetic of a computer is told; what is no
    whole number stays as it is.

    Args:
        values: of any type and shape.
        path: of the file, for what is told.
        step: between two numbers that the file can hold.

    >>> whole_numbers(np.array([0.99999999977, 0.5]), Path("label.nii")).tolist()
    [1.0, 0.5]
    """
    if values.dtype.kind not in "fc":
        return values
    nearest = np.rint(values)
    off = np.abs(values - nearest)
    near = off <= (max(NEARLY_WHOLE, step / 2) if step < 1 else NEARLY_WHOLE)
    if near.all() and (most := float(off.max(initial=0))) > ROUNDING:
        tell(
            f"{path}: its values are up to {most:.2g} from whole numbers, and were rounded to them. If they are no "
            "class values, give another label."
        )
    return np.where(near, nearest, values)

# SPDX-License-Identifier: Apache-2.0
"""Turn the stacks of a plan into the pictures, masks and lists of a Pascal VOC tree."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from bundle.pyraseg.core import PyrasegError, replacing, require_mendable, require_new, write_csv, write_json
from bundle.pyraseg.datalists import IMAGES, MASKS, PARTS, SPLITS, random_split, write_lists, write_mask, write_picture
from bundle.pyraseg.dicom import DicomImage, read_rescale, read_series
from bundle.pyraseg.transforms import UNKNOWN, LabelReader, from_dicom
from bundle.pyraseg_tools.datasets.voc.pictures import (
    Picture,
    WindowItem,
    is_square,
    lossless_pictures,
    square_pixels,
    windowed_pictures,
)
from bundle.pyraseg_tools.datasets.voc.stacks import Plan, Stack

LOGGER = logging.getLogger(__name__)

#: What a user may want of the pictures. "jpg" is what VOC's readers look for, "png16" loses nothing.
FORMATS = {"jpg": ".jpg", "png": ".png", "png16": ".png"}
#: Columns of `images.csv`, which is part of the tree and says nothing of a patient.
IMAGE_COLUMNS = (
    "image", "patient", "part", "classes", "modality", "units", "window", "value_slope", "value_intercept",
    "row_spacing", "column_spacing", "burned_in",
)  # fmt: skip
#: Columns of the link, which is not.
LINK_COLUMNS = (
    "image", "patient", "patient_id", "stated_patient", "study_uid", "series_uid", "sop_instance_uid", "frame",
    "file", "label",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Hold how slices become pictures.

    Attributes:
        windows: one item of `Windowd` for gray pictures, three for the channels of RGB.
        fallback: takes the place of "header" in series without a window that can be used.
        format: one of `FORMATS`.
        square: resample pictures with other than square pixels.
        labels: reads labels as class indices; None where there are none to write.
    """

    windows: Sequence[WindowItem] = ("header",)
    fallback: WindowItem | None = None
    format: str = "jpg"
    square: bool = False
    labels: LabelReader | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise PyrasegError(f"Pictures are written as one of {', '.join(FORMATS)}, not as {self.format!r}.")
        if len(self.windows) not in (1, 3):
            raise PyrasegError(f"One window makes a gray picture and three an RGB one; {len(self.windows)} are given.")
        if self.format == "png16" and (self.square or tuple(self.windows) != ("header",)):
            raise PyrasegError("png16 writes values as they are: leave windows and square pixels out, or write png.")


@dataclass(frozen=True)
class Result:
    """Hold what became of a conversion.

    Attributes:
        images: how many pictures were written.
        parts: how many labeled pictures are in each part of the split, by its name in VOC.
        patients: how many patients the pictures come from.
        failures: where the series and files are that were left out, and what is wrong with them.
        warnings: what a user should know of the pictures.
    """

    images: int
    parts: Mapping[str, int]
    patients: int
    failures: Sequence[str]
    warnings: Sequence[str]


def write_voc(
    folder: str | Path,
    link: str | Path,
    plan: Plan,
    settings: Settings,
    *,
    split_shares: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    num_workers: int = 0,
) -> Result:
    """Write a Pascal VOC tree, whole or not at all, and the link from its pictures to their sources.

    Pictures are named after the number of their patient, of their stack and of the slice. Slices stand as they are
    stored: rows and columns are those of the DICOM file. Pictures with a label are listed in one part of the split,
    which is made by patient; those without are in `JPEGImages` alone, as in VOC.

    Args:
        folder: must not exist, or be empty.
        link: CSV file outside of `folder`; must not exist.
        plan: what to convert.
        settings: how.
        split_shares: shares of the labeled patients in training, validation and test.
        seed: of the split.
        num_workers: processes, each of which converts one stack at a time.

    Raises:
        PyrasegError: `folder` or `link` is taken, or not a single stack could be converted.
    """
    folder, link = Path(folder).expanduser().resolve(), Path(link).expanduser().resolve()
    require_new(folder)
    if link.exists() or link.is_relative_to(folder):
        what = "exists" if link.exists() else f"lies in {folder}, which is made to be passed on"
        raise PyrasegError(f"The link {link} {what}. Give another file.")
    labeled = [{"patient": stack.patient} for stack in plan.stacks if stack.labels]
    parts = random_split(labeled, split_shares, seed)
    part_of = {item["patient"]: PARTS[part] for part, items in parts.items() for item in items}
    with replacing(folder) as partial:
        for name in (IMAGES, MASKS):
            (partial / name).mkdir(parents=True)
        work = _Conversion(plan.stacks, settings, partial)
        workers = DataLoader(
            work, batch_size=None, num_workers=min(num_workers, len(plan.stacks)), collate_fn=_unchanged
        )
        converted = list(tqdm(workers, desc="Converting", unit="series", disable=None, total=len(plan.stacks)))
        failures = [outcome.fault for outcome in converted if outcome.fault]
        failures += [f"{file}: it is DICOM and cannot be read; replace it or leave it out" for file in plan.unreadable]
        # In the order of the names of the pictures, which says nothing of names of patients.
        images: list[dict[str, Any]] = [row for outcome in converted for row in outcome.images]
        images.sort(key=itemgetter("image"))
        links: list[dict[str, Any]] = [row for outcome in converted for row in outcome.links]
        links.sort(key=itemgetter("image"))
        if not images:
            raise PyrasegError(_named_failures(failures, "nothing is written"))
        for row in images:
            row["part"] = part_of[row["patient"]] if row["classes"] is not None else ""
        lists = {part: [row["image"] for row in images if row["part"] == PARTS[part]] for part in SPLITS}
        write_lists(partial, lists)
        write_csv(partial / "images.csv", IMAGE_COLUMNS, images, digits=None)
        _write_description(partial / "conversion.json", settings, split_shares, seed)
        with replacing(link) as partial_link:
            write_csv(partial_link, LINK_COLUMNS, links, digits=None)
            partial_link.chmod(0o600)
    return Result(
        images=len(images),
        parts={PARTS[part]: len(names) for part, names in lists.items()},
        patients=len({row["patient"] for row in images}),
        failures=failures,
        warnings=_warnings(images),
    )


def require_all(result: Result) -> None:
    """Raise PyrasegError if any series or file was left out; the message names each."""
    if result.failures:
        raise PyrasegError(_named_failures(result.failures, "the others are written"))


def read_stack(stack: Stack, settings: Settings) -> tuple[DicomImage, MetaTensor, MetaTensor | None]:
    """Read a stack and its label: image (C, W, H, D) in rescaled units or RGB, classes (1, W, H, D) or None.

    Raises:
        PyrasegError: it cannot be read, or has several labels or one that does not fit.
    """
    if len(stack.labels) > 1:
        names = ", ".join(map(str, stack.labels))
        raise PyrasegError(f"{len(stack.labels)} labels belong to it: {names}. Choose one in a table.")
    source = read_series(stack.files, select=stack.select)
    array, meta = from_dicom(source)
    tensor = torch.from_numpy(np.moveaxis(array, 3, 0).copy() if array.ndim == 4 else array[None])
    image = MetaTensor(tensor, meta={**meta, "filename_or_obj": stack.place})
    if not stack.labels or settings.labels is None:
        return source, image, None
    return (
        source,
        image,
        MetaTensor(
            torch.from_numpy(settings.labels.read(stack.labels[0], source, drawn_on=stack.drawn_on).copy())[None]
        ),
    )


def pixel_spacing(image: DicomImage, aspect_ratio: object = None) -> tuple[float, float] | None:
    """Return the size of pixels, (between rows, between columns), or None where the header does not tell.

    It is in mm, or, where there is Pixel Aspect Ratio alone (PS3.3 C.7.6.3.1.7: vertical, horizontal), a ratio.
    """
    if image.geometry is not None:
        return image.geometry.pixel_spacing
    stated: list[Any] = [image.source.get("PixelSpacing"), image.source.get("ImagerPixelSpacing"), aspect_ratio]
    for value in stated:
        try:
            rows, columns = map(float, value or ())
        except (TypeError, ValueError):
            continue
        if rows > 0 and columns > 0:
            return rows, columns
    return None


@dataclass(frozen=True)
class _Outcome:
    """Hold the rows of a stack's pictures in the two tables, or what is wrong with it."""

    fault: str = ""
    images: list[dict[str, Any]] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)


class _Conversion(Dataset):
    """Write the pictures and masks of one stack a time."""

    def __init__(self, stacks: Sequence[Stack], settings: Settings, root: Path) -> None:
        self.stacks = stacks
        self.settings = settings
        self.root = root

    def __len__(self) -> int:
        return len(self.stacks)

    def __getitem__(self, index: int) -> _Outcome:
        stack = self.stacks[index]
        try:
            return self.convert(stack)
        except Exception as error:  # MONAI's transforms wrap what they raise
            fault = str(require_mendable(error))
            return _Outcome(fault if fault.startswith(stack.place) else f"{stack.place}: {fault}")

    def convert(self, stack: Stack) -> _Outcome:
        settings = self.settings
        source, image, label = read_stack(stack, settings)
        spacing = pixel_spacing(source, stack.headers[0].get("PixelAspectRatio"))
        if settings.square and spacing is not None and not is_square(spacing):
            image = square_pixels(image, spacing, mode="bilinear")
            label = None if label is None else square_pixels(label, spacing, mode="nearest")
            spacing = (min(spacing),) * 2
        if settings.format == "png16":
            pictures = lossless_pictures(image, _slopes(stack, source))
        else:
            pictures = windowed_pictures(image, settings.windows, fallback=settings.fallback)
        masks = [None] * len(pictures) if label is None else np.asarray(label)[0].astype(np.uint8).transpose(2, 1, 0)
        outcome = _Outcome()
        for index, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
            name = f"{stack.name}_{index + 1:04}"
            write_picture(self.root / IMAGES / f"{name}{FORMATS[settings.format]}", picture.pixels)
            if mask is not None:
                write_mask(self.root / MASKS / f"{name}.png", mask)
            outcome.images.append(_image_row(name, stack, source, picture, mask, spacing))
            outcome.links.append(_link_row(name, stack, source, index))
        return outcome


def _slopes(stack: Stack, source: DicomImage) -> list[float]:
    """Return by how much the values of every slice differ where its stored ones differ by 1."""
    header = dict(zip(stack.files, stack.headers, strict=True))
    frames = zip(source.files, source.frame_numbers, source.factors, strict=True)
    return [factor * read_rescale(header[file], number - 1)[0] for file, number, factor in frames]


def _image_row(
    name: str,
    stack: Stack,
    source: DicomImage,
    picture: Picture,
    mask: np.ndarray | None,
    spacing: tuple[float, float] | None,
) -> dict[str, Any]:
    slope, intercept = picture.mapping or ("", "")
    rows, columns = spacing or ("", "")
    return {
        "image": name,
        "patient": stack.patient,
        "classes": None if mask is None else " ".join(map(str, np.unique(mask))),
        "modality": source.modality,
        "units": source.units,
        "window": picture.window,
        "value_slope": slope,
        "value_intercept": intercept,
        "row_spacing": rows,
        "column_spacing": columns,
        "burned_in": source.source.get("BurnedInAnnotation", ""),
    }


def _link_row(name: str, stack: Stack, source: DicomImage, index: int) -> dict[str, Any]:
    return {
        "image": name,
        "patient": stack.patient,
        "patient_id": str(stack.headers[0].get("PatientID") or ""),
        "stated_patient": stack.stated_patient,
        "study_uid": source.study_uid,
        "series_uid": source.series_uid,
        "sop_instance_uid": source.sop_instance_uids[index],
        "frame": source.frame_numbers[index],
        "file": source.files[index],
        "label": stack.labels[0] if stack.labels else "",
    }


def _write_description(path: Path, settings: Settings, split_shares: Sequence[float], seed: int) -> None:
    content = {
        "class_names": None if settings.labels is None else settings.labels.table.class_names,
        "void": UNKNOWN,
        "format": settings.format,
        "windows": list(settings.windows) if settings.format != "png16" else None,
        "fallback": settings.fallback,
        "square_pixels": settings.square,
        "split_shares": list(split_shares),
        "seed": seed,
    }
    if settings.format == "png16":
        content["values"] = "rescaled units (units) = value_slope * pixel + value_intercept, by picture in images.csv"
    write_json(path, content, indent=2)


def _warnings(images: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    oblong = [row["image"] for row in images if row["row_spacing"] and not is_square(
        (row["row_spacing"], row["column_spacing"]))]  # fmt: skip
    burned = [row["image"] for row in images if row["burned_in"] == "YES"]
    if oblong:
        found.append(f"{len(oblong)} pictures look squeezed, such as {oblong[0]}: their pixels are not square.")
    if burned:
        found.append(
            f"{len(burned)} pictures have annotation burned in, such as {burned[0]}: look for names before sharing."
        )
    return found


def _named_failures(failures: Sequence[str], rest: str) -> str:
    return "\n  ".join([f"{len(failures)} series or files were not converted, {rest}:", *failures])


def _unchanged(outcome: Any) -> Any:
    return outcome

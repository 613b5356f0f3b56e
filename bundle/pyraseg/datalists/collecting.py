# SPDX-License-Identifier: Apache-2.0
"""Collect what a data list is made from: pairs, whose they are, which classes they hold, which are the same."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bundle.pyraseg.core import ITK, NIFTI, PHOTOGRAPH, PyrasegError, first_image, image_files, protect
from bundle.pyraseg.datalists.annotations import annotated_from_csv
from bundle.pyraseg.datalists.duplicates import Duplicate, find_duplicates
from bundle.pyraseg.datalists.look_alikes import LookAlikes, find_look_alikes
from bundle.pyraseg.datalists.nnunet import stated_classes
from bundle.pyraseg.datalists.pairing import DECATHLON, NNUNET, find_pairs, read_dataset_json
from bundle.pyraseg.datalists.patients import (
    PATIENT_KEYWORDS,
    Identity,
    group_patients,
    join,
    patients_by_pattern,
    patients_from_csv,
)
from bundle.pyraseg.dicom import find_header, read_sequences, read_wanted
from bundle.pyraseg.labels import (
    DRAWN_ON,
    StructureSet,
    color_name,
    colors_in,
    open_label,
    read_painted,
    slicer_segments,
    with_options,
)
from bundle.pyraseg.transforms import stored_label

#: More values than this are no classes but a blurred mask.
MOST_VALUES = 255


@dataclass(frozen=True)
class DataList:
    """The cases of a data set and what is known of them; sequences have the order of `items`.

    Attributes:
        layout: how pairs were found, in words.
        grouping: how patients were told apart, in words.
        items: {"image": path, "label": path, "patient": running number}, with `"patient_known": False` where nothing
            but the images themselves tells whose they are, and `"annotated": names` where not all classes were.
        sources: what each running number stands for: the name in the file, the table or of the case.
        classes: that each label holds.
        duplicates: pairs of images that are the same or nearly so.
        class_names: of label values, as a `dataset.json` states them.
        unknown_value: value of pixels that nobody has labeled.
        look_alikes: pairs of images that look like frames of one scan, where they were looked for.
    """

    layout: str
    grouping: str
    items: list[dict[str, Any]]
    sources: list[str]
    classes: list[set[str]]
    duplicates: list[Duplicate]
    class_names: dict[int, str] = field(default_factory=dict)
    unknown_value: int | None = None
    look_alikes: LookAlikes | None = None


def collect_cases(
    folder: Path,
    *,
    image_pattern: str | None = None,
    label_pattern: str | None = None,
    patient_pattern: str | None = None,
    patient_csv: Path | None = None,
    annotated_csv: Path | None = None,
    group_by: str = "auto",
    merge_duplicates: bool = False,
    threshold: float,
    together: float | None = None,
    label_threshold: float | None = None,
    unknown_value: int | None = None,
    series: str = "",
    select: str = "",
    drawn_on: str = DRAWN_ON[0],
    sequences: Any = None,
    allow_missing: bool = False,
) -> DataList:
    """Find the cases of a data set, whose they are, what they hold, and which are the same.

    Who a patient is, `group_patients` says. Where nothing tells, each case is a patient of its own, except that images
    which are the same or nearly so are one patient.

    Args:
        folder: of the data set.
        image_pattern: with `label_pattern`, instead of the layouts of `find_pairs`.
        label_pattern: see there.
        patient_pattern: regular expression whose first group, in a case's name, is the patient.
        patient_csv: table with the columns case and patient.
        annotated_csv: table of the classes that were annotated, see `annotated_from_csv`.
        group_by: how headers tell patients apart, as for `group_patients`.
        merge_duplicates: make one patient of those who share an image.
        threshold: correlation from which on two images are nearly the same.
        together: make one patient of those whose pictures look like frames of one scan, `spreads` of
            `find_look_alikes`; None: do not look for such.
        label_threshold: values of blurred masks from here on are class 1.
        unknown_value: value of pixels that nobody has labeled.
        series, select, drawn_on: which DICOM series, which slices of each, and what their labels must share with them;
            the list says so of each case, see `labels.case_options`.
        sequences: what `read_sequences` takes, where a case has several images; they choose the series. Copies are
            looked for among the first sequences.
        allow_missing: sequences but the first may be missing.

    Raises:
        PyrasegError: there are no pairs, patients are not told apart, or a file cannot be read.
    """
    layout, items = find_pairs(
        folder,
        image_pattern=image_pattern,
        label_pattern=label_pattern,
        series=read_wanted(series),
        select=select,
        drawn_on=drawn_on,
        sequences=read_sequences(sequences),
        allow_missing=allow_missing,
    )
    said = {"series": series, "select": select, "drawn_on": "" if drawn_on == DRAWN_ON[0] else drawn_on}
    items = [with_options({**said, **item} if _is_dicom(_first_path(item)) else item) for item in items]
    protect(file for item in items for file in (*image_files(item["image"]), item["label"]))
    class_names: dict[int, str] = {}
    stated_unknown = 255 if layout == "Pascal VOC" else None
    if layout in (NNUNET, DECATHLON):
        class_names, stated_unknown = stated_classes(read_dataset_json(folder / "dataset.json"))
    unknown_value = stated_unknown if unknown_value is None else unknown_value
    cases = [item["patient"] for item in items]
    known, sources = True, cases
    named: Sequence[str] | None = None  # patients, as people call them
    if patient_pattern is not None:
        grouping, sources = f"the pattern {patient_pattern}", patients_by_pattern(cases, patient_pattern)
        named = sources
        identities = [Identity(case, stated=patient) for case, patient in zip(cases, sources, strict=True)]
    elif patient_csv is not None:
        grouping, sources = f"the table {patient_csv.name}", patients_from_csv(cases, patient_csv)
        named = sources
        identities = [Identity(case, stated=patient) for case, patient in zip(cases, sources, strict=True)]
    elif are_dicom(items):
        known = group_by != "study"
        grouping = "Patient ID, study and frame of reference" if known else "study and frame of reference"
        headers = [find_header(first_image(item["image"]), keywords=PATIENT_KEYWORDS) for item in items]
        identities = [Identity.of(header, case) for header, case in zip(headers, cases, strict=True)]
        named = [identity.patient_id for identity in identities] if known else None
    else:
        grouping, known = "none: each case is a patient of its own", False
        identities = [Identity(case) for case in cases]
    protect([] if annotated_csv is None else [annotated_csv])
    annotated = [None] * len(cases) if annotated_csv is None else annotated_from_csv(cases, named, annotated_csv)
    patients = group_patients(identities, group_by, strict=known, naming="by --patient-csv or --patient-pattern")
    images = [first_image(item["image"]) for item in items]
    duplicates = find_duplicates(images, threshold=threshold)
    merged = [(pair.first, pair.second) for pair in duplicates if merge_duplicates or not known]
    if merged:
        grouping += ", joined where images are the same or nearly so"
    look_alikes = None if together is None else find_look_alikes(images, spreads=together)
    if look_alikes:
        grouping += ", joined where pictures look like frames of one scan"
        merged += [(pair.first, pair.second) for pair in look_alikes.pairs]
    names = join([[patient] for patient in patients], merged)
    classes = [
        classes_present(
            item["label"], threshold=label_threshold, unknown_value=unknown_value, phase=int(item.get("phase") or 0)
        )
        for item in tqdm(items, desc="Reading labels", unit="label", disable=None)
    ]
    classes = [{class_names.get(int(kind), kind) if kind.isdigit() else kind for kind in held} for held in classes]
    return DataList(
        layout,
        grouping,
        [
            {**item, "patient": name}
            | ({} if known else {"patient_known": False})
            | ({} if of_item is None else {"annotated": of_item})
            for item, name, of_item in zip(items, names, annotated, strict=True)
        ],
        sources,
        classes,
        duplicates,
        class_names,
        unknown_value,
        look_alikes,
    )


def are_dicom(items: Iterable[Mapping[str, str]]) -> bool:
    """Return whether every image is a DICOM series, file or multi-frame object, told as the reader tells it."""
    return all(_is_dicom(_first_path(item)) for item in items)


def _first_path(item: Mapping[str, Any]) -> Path:
    image = item["image"]
    return Path(next(iter(image.values())) if isinstance(image, Mapping) else image)


def _is_dicom(path: Path) -> bool:
    return path.is_dir() or not path.name.lower().endswith(NIFTI + ITK + PHOTOGRAPH)


def classes_present(
    label: str | Path, *, threshold: float | None = None, unknown_value: int | None = None, phase: int = 0
) -> set[str]:
    """Return the classes that a label holds, background left out.

    They are the values of a label map, the colors of one that is painted ("#ff0000"), the names of the segments of a
    DICOM SEG or of 3D Slicer that have pixels, or those of the regions of an RTSTRUCT that have contours.

    Args:
        label: path.
        threshold: values of a map from here on are class 1, smaller ones background.
        unknown_value: value of pixels that nobody has labeled.
        phase: of its image, from 1, where that is one of several, see `stored_label`.

    Raises:
        PyrasegError: the label cannot be read, or holds too many values to be classes.
    """
    path = Path(label)
    if _is_dicom(path):
        found = open_label(path)
        if isinstance(found, StructureSet):
            return {roi.region.name for roi in found.rois.values() if roi.contours}
        drawn = {frame.segment for frame in found.frames() if frame.mask.any()}
        return {found.regions[number].name for number in drawn}
    if path.name.lower().endswith(PHOTOGRAPH):
        painted = read_painted(path)
        if painted.colored:
            return {color_name(color) for color in colors_in(painted.values, path)}
        values = np.unique(painted.values)
    else:
        stored, meta = stored_label(path, phase=phase)
        if "segments" in meta:
            layers = np.moveaxis(stored, 3, 0) if stored.ndim == 4 else stored[None]
            segments = slicer_segments(meta["segments"], len(layers), f"The segmentation {path}").values()
            return {segment.region.name for segment in segments if (layers[segment.layer] == segment.value).any()}
        values = np.unique(stored)
    if threshold is not None:
        values = np.unique(values >= threshold)
    if len(values) > MOST_VALUES + 1 or (values != np.round(values)).any():
        raise PyrasegError(
            f"The label {path} holds {len(values)} values, which are no classes. Give a threshold for a blurred mask."
        )
    return {f"{value:g}" for value in values.astype(float) if value not in (0, unknown_value)}

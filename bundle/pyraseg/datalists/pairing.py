# SPDX-License-Identifier: Apache-2.0
"""Which image belongs to which label, found in the folders of a data set.

An item is {"image": path, "label": path, "patient": name of the case}: a case is a patient of its own until something
tells otherwise. Where a case has several sequences, its image is {name: path}, see `sequences.py`.
"""

import json
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

import pydicom

from bundle.pyraseg.core import PyrasegError, without_suffix
from bundle.pyraseg.datalists.nnunet import find_nnunet, is_nnunet, require_one_channel
from bundle.pyraseg.datalists.phases import labels_by_phase, pair_phases, phases_of
from bundle.pyraseg.datalists.sequences import NoSequences, Sequences, images_of_cases, place_of_series, studies_of
from bundle.pyraseg.dicom import Scan, find_series, read_selection, those_meant
from bundle.pyraseg.labels import DRAWN_ON, ImageUids, images_of, is_automatic, read_references

logger = logging.getLogger(__name__)

#: What the masks of the ISIC challenges are called: the image's name, and this.
ISIC_MASK = "_segmentation.png"
#: The layouts that a `dataset.json` describes, in words.
NNUNET, DECATHLON = "nnU-Net (dataset.json)", "Decathlon (dataset.json)"
#: Folders that hold images, and those that may hold their labels, under the same names.
PARALLEL = tuple((images, labels) for images in ("images", "imagesTr") for labels in ("labels", "masks", "labelsTr"))


def find_pairs(
    folder: Path,
    *,
    image_pattern: str | None = None,
    label_pattern: str | None = None,
    series: Sequence[str] = (),
    select: str | Mapping[str, object] = "",
    drawn_on: str = DRAWN_ON[0],
    sequences: Sequences = NoSequences,
    allow_missing: bool = False,
) -> tuple[str, list[dict[str, Any]]]:
    """Return the layout of a data set in words, and its items in the order of their names.

    Tried in this order, the first that is there: two patterns, a `dataset.json` of nnU-Net or the Decathlon, Pascal
    VOC, the names of the ISIC challenges, parallel folders, DICOM series with SEG or RTSTRUCT objects that refer to
    them. For the last one, `series`, `select` and `drawn_on` are as for `pair_dicom`; `sequences` and `allow_missing`
    are as for `pair_by_pattern`.

    Raises:
        PyrasegError: the folder is no folder, one pattern is given without the other, or no image has a label.
    """
    several = {"sequences": sequences, "allow_missing": allow_missing}
    if not folder.is_dir():
        raise PyrasegError(f"There is no folder {folder}. Give the folder of the data set.")
    if image_pattern is not None and label_pattern is not None:
        return f"{image_pattern} and {label_pattern}", pair_by_pattern(folder, image_pattern, label_pattern, **several)
    if image_pattern is not None or label_pattern is not None:
        raise PyrasegError("An image pattern and a label pattern belong together: give both or none.")
    if (listed := folder / "dataset.json").is_file():
        content = read_dataset_json(listed)
        if is_nnunet(content):
            return NNUNET, _join(folder, *find_nnunet(folder, content, **several))
        _require_one(sequences, DECATHLON)
        return DECATHLON, pair_decathlon(listed)
    if (folder / "JPEGImages").is_dir() and (folder / "SegmentationClass").is_dir():
        _require_one(sequences, "Pascal VOC")
        return "Pascal VOC", pair_by_pattern(folder, "JPEGImages/{case}", "SegmentationClass/{case}.png")
    if next(folder.rglob(f"*{ISIC_MASK}"), None):
        _require_one(sequences, "ISIC")
        return "ISIC", pair_isic(folder)
    for images, labels in PARALLEL:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return f"{images}/ and {labels}/", pair_by_pattern(
                folder, f"{images}/{{case}}", f"{labels}/{{case}}", **several
            )
    try:
        scan = find_series(folder, keywords=read_selection(select))
    except PyrasegError as error:
        raise PyrasegError(
            f"{folder} has none of the known layouts: dataset.json, JPEGImages/ and SegmentationClass/, masks "
            f"X{ISIC_MASK}, images/ and labels/ or masks/, or DICOM series. Give an image pattern and a label pattern."
        ) from error
    return "DICOM series with the objects that refer to them", pair_dicom(
        folder, scan, series=series, select=select, drawn_on=drawn_on, **several
    )


def _require_one(sequences: Sequences, layout: str) -> None:
    if sequences:
        raise PyrasegError(
            f"The layout {layout} has one image a case, and sequences are asked for. Say where they lie: "
            '--image-pattern "imagesTr/{case}" --label-pattern "labelsTr/{case}" takes imagesTr/CASE_SEQUENCE.nii.gz.'
        )


def read_dataset_json(listed: Path) -> Any:
    """Return the content of a `dataset.json`.

    Raises:
        PyrasegError: it is not JSON.
    """
    try:
        return json.loads(listed.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PyrasegError(f"{listed} cannot be read as JSON: {error}. Correct it, or move it away.") from error


def pair_by_pattern(
    folder: Path,
    image_pattern: str,
    label_pattern: str,
    *,
    sequences: Sequences = NoSequences,
    allow_missing: bool = False,
) -> list[dict[str, Any]]:
    """Pair what two patterns match, by the name that stands for `{case}` in both.

    Args:
        folder: of the data set.
        image_pattern: of the images below it.
        label_pattern: of their labels.
        sequences: what `read_sequences` returned, where a case has several images: files `CASE_SEQUENCE.nii.gz`, or a
            folder CASE with the files, or the DICOM series, of one study.
        allow_missing: sequences but the first may be missing.

    Raises:
        PyrasegError: a pattern is none, no name is in both, two files stand for one case, or a case with a label lacks
            a sequence or has two for one.
    """
    matched = _match(folder, image_pattern, "image_pattern")
    labels = _match(folder, label_pattern, "label_pattern")
    images: Mapping[str, Any] = matched
    if sequences:
        images = images_of_cases(matched, labels, sequences, allow_missing=allow_missing)
    if not images.keys() & labels.keys() and (sequences or not pair_phases(matched, labels)):
        raise PyrasegError(
            f"{folder} has neither a datalist.json nor an image with a label: {len(images)} images match "
            f"{image_pattern!r}, {len(labels)} labels match {label_pattern!r}, and no name is in both. "
            "Write a datalist.json, or correct image_pattern and label_pattern."
        )
    return _join(folder, images, labels)


def pair_isic(folder: Path) -> list[dict[str, Any]]:
    """Pair every `X_segmentation.png` below a folder with the one image called X, wherever it lies.

    Raises:
        PyrasegError: no mask has an image, or two files stand for one case.
    """
    masks, images = {}, {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")):
        if path.name.startswith("."):
            continue
        if path.name.endswith(ISIC_MASK):
            _add(masks, path.name.removesuffix(ISIC_MASK), path, folder)
        elif path.suffix.lower() != ".png" or not path.stem.endswith("_superpixels"):  # of ISIC 2017, beside its images
            _add(images, without_suffix(path.name), path, folder)
    if not images.keys() & masks.keys():
        raise PyrasegError(
            f"{folder} holds {len(masks)} masks X{ISIC_MASK}, but no image X.jpg or X.png of the same name. "
            "Unpack the images there as well."
        )
    return _join(folder, images, masks)


def pair_decathlon(listed: Path) -> list[dict[str, Any]]:
    """Return the training pairs of a Medical Segmentation Decathlon `dataset.json`; its test images have no labels.

    Raises:
        PyrasegError: the file is no such list, or a path is absent or leads out of its folder.
    """
    folder = listed.parent.resolve()
    content = read_dataset_json(listed)
    try:
        pairs = [(str(item["image"]), str(item["label"])) for item in content["training"]]
    except (KeyError, TypeError) as error:
        raise PyrasegError(
            f'{listed} is no list of the Decathlon: "training" must hold {{"image": path, "label": path}}. Nor is it '
            'one of nnU-Net, with "channel_names", "labels" and "file_ending". Correct it, or move it away.'
        ) from error
    if not pairs:
        raise PyrasegError(f"{listed} lists no training pair.")
    items = []
    for image, label in pairs:
        paths = [Path(os.path.normpath(folder / name)) for name in (image, label)]
        case = without_suffix(paths[0].name)
        ending = paths[0].name.removeprefix(case)
        first = paths[0].with_name(f"{case}_0000{ending}")
        if not paths[0].exists() and first.is_file():  # nnU-Net 1 lists cases, and has a file for each channel
            channels = list(first.parent.glob(f"{escape(case)}_[0-9][0-9][0-9][0-9]{ending}"))
            require_one_channel(content, len(channels), ending)
            paths[0] = first
        for path in paths:
            if not path.is_relative_to(folder) or not path.exists():
                raise PyrasegError(
                    f"{listed} lists {path}, which is absent or outside its folder. Unpack the set again."
                )
        items.append({"image": str(paths[0]), "label": str(paths[1]), "patient": case})
    left_out = len(content.get("test") or [])
    if left_out:
        logger.warning("%d test images of %s have no labels and are left out", left_out, listed)
    return sorted(items, key=lambda item: item["patient"])


def _match(folder: Path, pattern: str, option: str) -> dict[str, Path]:
    """Return the files and folders that match `pattern`, by the name that stands for `{case}`; hidden ones are none."""
    if pattern.count("{case}") != 1:
        raise PyrasegError(f"{option} must hold {{case}} once, in the place of a case's name, got {pattern!r}.")
    before, after = pattern.split("{case}")
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{escape(before)}*{escape(after)}")):
        name = path.relative_to(folder).as_posix()[len(before) :]
        if not name.startswith("."):
            _add(found, name.removesuffix(after) if after else without_suffix(name), path, folder)
    return found


def _add(found: dict[str, Path], case: str, path: Path, folder: Path) -> None:
    if case in found:
        raise PyrasegError(f"Two files of {folder} stand for the case {case}: {found[case].name} and {path.name}.")
    found[case] = path


def _join(folder: Path, images: Mapping[str, Any], labels: Mapping[str, Path]) -> list[dict[str, Any]]:
    files = {case: path for case, path in images.items() if isinstance(path, Path)}  # several sequences have no phases
    of_phases = pair_phases(files, dict(labels))
    paired = {item["image"] for item in of_phases} | {item["label"] for item in of_phases}
    labels = {case: path for case, path in labels.items() if str(path) not in paired}
    images = {case: path for case, path in images.items() if str(path) not in paired or case in labels}
    unpaired = sorted(images.keys() ^ labels.keys())
    if unpaired:
        logger.warning(
            "%d files in %s have no partner and are left out, such as %s", len(unpaired), folder, unpaired[0]
        )
    whole = [
        {
            **(images[case] if isinstance(images[case], Mapping) else {"image": str(images[case])}),
            "label": str(labels[case]),
            "patient": case,
        }
        for case in sorted(images.keys() & labels.keys())
    ]
    return sorted([*whole, *of_phases], key=lambda item: item["patient"])


def pair_dicom(
    folder: Path,
    scan: Scan,
    *,
    series: Sequence[str] = (),
    select: str | Mapping[str, object] = "",
    drawn_on: str = DRAWN_ON[0],
    sequences: Sequences = NoSequences,
    allow_missing: bool = False,
) -> list[dict[str, Any]]:
    """Pair every image series of a scanned folder with the one SEG or RTSTRUCT object that refers to it.

    A series with several phases may have one for each: the images that it refers to say which, see `labels_by_phase`.
    Which one that is, `labels.images_of` says. An image is given as its folder, or as its file if it is a single one;
    where it shares its folder, its UID stands under "series". Of several sequences of a study, the object refers to the
    first. A segmentation that a program made alone does not count where a person has labeled the same series.

    Args:
        folder: of the data set.
        scan: of the folder.
        series: texts that stand for the series to pair, see `is_meant`; none for all.
        select: which slices of the series are read; the scan has what it selects by.
        drawn_on: "frame_of_reference" pairs a label that refers to none of these series with the one that is in its
            frame of reference.
        sequences, allow_missing: as for `pair_by_pattern`; a case is a study.

    Raises:
        PyrasegError: no series is meant, or none has a label; a series has two, or an object two series; or a series
            without a UID shares its folder with another one, so that nothing stands for it alone.
    """
    labels: dict[str, list[Path]] = {}
    homeless, left_out = [], []
    images = [ImageUids.of_images(one.headers) for one in scan.series]
    if sequences and series:
        raise PyrasegError("sequences choose the series of each case; leave out --series.")
    studies = studies_of(scan, sequences, allow_missing=allow_missing) if sequences else {}
    chosen = those_meant(scan.series, series, folder) if not sequences else [scan.series[place] for place in studies]
    meant = {place for place, one in enumerate(scan.series) if one in chosen}
    for path in scan.label_objects:
        references = read_references(path)
        drawn = images_of(references, images)
        found = [place for place in drawn if place in meant]
        if not found and drawn_on == "frame_of_reference":
            frames = references.frames_of_reference
            found = [place for place in sorted(meant) if frames & images[place].frames_of_reference]
        if len(found) > 1:
            raise PyrasegError(
                f"{path} refers to {len(found)} of the series in the folder. Keep only the one it was drawn on, or "
                "choose one with --series."
            )
        if found:
            labels.setdefault(scan.series[found[0]].uid, []).append(path)
        else:
            (left_out if drawn else homeless).append(path)
    if homeless:
        logger.warning(
            "%d SEG or RTSTRUCT objects refer to no series in the folder, such as %s", len(homeless), homeless[0]
        )
    if left_out:
        logger.warning(
            "%d SEG or RTSTRUCT objects refer to series that --series leaves out, such as %s; they are left out, too",
            len(left_out), left_out[0],
        )  # fmt: skip
    if sequences and (aside := next(iter(left_out), None)) and not labels:
        raise PyrasegError(
            f"{folder} has {len(left_out)} SEG or RTSTRUCT objects, such as {aside}, and none refers to a series of "
            f"the first sequence, {next(iter(sequences))}, whose grid labels are on. Name the sequence first that they "
            "were drawn on."
        )
    if not labels and left_out:
        raise PyrasegError(
            f"{folder} has {len(meant)} series that --series {shlex.quote(';'.join(series))} means, but none with a "
            f"label: {len(left_out)} SEG or RTSTRUCT objects refer to other series, such as {left_out[0]}. Choose "
            "those with --series, or say --drawn_on frame_of_reference where the patient did not move between the two."
        )
    if not labels:
        raise PyrasegError(
            f"{folder} has {len(scan.series)} image series, but none with a label: {len(homeless)} SEG or RTSTRUCT "
            "objects were found, and none refers to one of these series. Put images into images/ and labels into "
            "labels/ under the same names, or give patterns."
        )
    unlabeled = len(meant) - len(labels)
    if unlabeled:
        logger.warning("%d of %d series in %s have no label and are left out", unlabeled, len(meant), folder)
    items = []
    for place, one in enumerate(scan.series):
        if one.uid in labels:
            (image, is_alone), found = place_of_series(one, scan.series), labels[one.uid]
            phases = None if sequences else phases_of(one, read_selection(select))
            if phases is None:
                found = _seen_by_people(found)
            if phases is None and len(found) > 1:
                names = ", ".join(str(path) for path in found)
                raise PyrasegError(f"The series {one} has {len(found)} labels: {names}. Move all but one away.")
            case = image.relative_to(folder).as_posix() if image != folder else image.name
            case = "_".join(filter(None, [case, one.view]))
            own: dict[str, Any] = {"image": str(image), "patient": case}
            own |= {} if is_alone else {"series": one.uid, "patient": f"{case}/{one.called}"}
            if phases is None:
                items.append({**own, "label": str(found[0])} | studies.get(place, {}))
            else:
                of_phase = labels_by_phase(one, phases, found)
                items += [{**own, "label": str(path), "phase": str(number)} for number, path in of_phase.items()]
    return sorted(items, key=lambda item: item["patient"])


def _seen_by_people(labels: list[Path]) -> list[Path]:
    """Return the labels of a series without what a program made alone, where a person has drawn or corrected one.

    So a result and its correction, which lie beside each other in an archive, are one label: the correction.
    """
    if len(labels) < 2:
        return labels
    seen = [path for path in labels if not is_automatic(pydicom.dcmread(path, force=True, stop_before_pixels=True))]
    if seen and len(seen) < len(labels):
        logger.warning(
            "%d segmentations that a program made alone are left out, since a person has labeled the same series",
            len(labels) - len(seen),
        )
    return seen or labels

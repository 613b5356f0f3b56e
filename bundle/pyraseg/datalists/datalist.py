# SPDX-License-Identifier: Apache-2.0
"""Data lists: which image belongs to which label, which patient and which part of the split."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import commonpath
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import PyrasegError, SequencePaths, image_files, protect
from bundle.pyraseg.datalists.pairing import pair_by_pattern
from bundle.pyraseg.datalists.patients import patients_by_pattern
from bundle.pyraseg.datalists.splitting import SPLITS, random_split, refuse_shared_patients
from bundle.pyraseg.datalists.voc import is_voc, read_lists
from bundle.pyraseg.dicom import read_sequences
from bundle.pyraseg.labels import annotated_classes, annotated_names, choice_text, with_options
from bundle.pyraseg.transforms import label_files

logger = logging.getLogger(__name__)

#: What to do where a data set is not there.
REMEDY = (
    "Give the folder of a data set with --dataset_dir, or make one: `pyraseg download` fetches public images, `pyraseg "
    "draw-photographs` draws synthetic ones."
)


def load_cases(
    dataset_dir: str | Path,
    *,
    image_pattern: str = "images/{case}",
    label_pattern: str = "labels/{case}",
    patient_pattern: str | None = None,
    split_shares: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    sequences: Any = None,
    allow_missing: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Return the cases of each part of the split, with absolute paths.

    `dataset_dir` holds a `datalist.json` in MONAI's Decathlon form, whose parts are `training`, `validation` and `test`
    and whose items are {"image": path, "label": path, "patient": group}, paths relative to the folder. In place of its
    path, a label may be {class name: path}, a mask for each class. An item in which only some classes were looked for
    names them: "annotated": ["liver"]. Of a DICOM image it may say which series at its path is meant, which slices of
    it, and what its label must share with it: "series", "select", "drawn_on", see `case_options`. With `sequences`, an
    image is {name of the sequence: path}, and becomes `SequencePaths`.
    Without that file it may be a Pascal VOC tree, whose `ImageSets/Segmentation` lists `train.txt`, `val.txt` and
    `test.txt` are the split. Else images and labels are paired by name and the patients split at random from `seed`.
    The split is logged with its hash. Cases whose patient nothing tells are patients of their own and carry
    `"patient_known": False`.

    Args:
        dataset_dir: folder of the data set.
        image_pattern: images below `dataset_dir` without a list; `{case}` stands for the name of a case, and a pattern
            that ends in it matches every suffix.
        label_pattern: their labels.
        patient_pattern: regular expression without a `datalist.json`; its first group, found in the name of a case, is
            the patient whom the case belongs to, such as "^(.+)[LR]$" for two eyes. None makes each pair a patient of
            its own.
        split_shares: shares of the patients in training, validation and test without a list.
        seed: of the split without a list.
        class_names: background first, that "annotated" is held against.
        sequences: what `read_sequences` takes; None: an image is one sequence.
        allow_missing: sequences but the first may be missing.

    Raises:
        PyrasegError: the folder is absent or empty, a file of the list is absent, no image has a label, a case does not
            tell its patient, a patient is in two parts of the split, a case is annotated for what is no class, or it
            lacks a sequence or has two for one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in range(10):
    ...         for kind in ("images", "labels"):
    ...             file = Path(folder, kind, f"case_{number}.png")
    ...             file.parent.mkdir(exist_ok=True)
    ...             file.touch()
    ...     {split: len(cases) for split, cases in load_cases(folder).items()}
    {'training': 7, 'validation': 1, 'test': 2}
    """
    folder = Path(dataset_dir).expanduser().resolve()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise PyrasegError(f"The data set folder {folder} {what}. {REMEDY}")
    if not any(folder.iterdir()):
        raise PyrasegError(f"The data set folder {folder} is empty. Put images and labels there. {REMEDY}")
    listed, names = folder / "datalist.json", list(read_sequences(sequences))
    if listed.is_file():
        cases = _read_list(listed, names, allow_missing)
    elif is_voc(folder):
        cases = {part: _with_patients(items, patient_pattern) for part, items in read_lists(folder).items()}
        if not cases["training"]:
            raise PyrasegError(f"The Pascal VOC tree {folder} lists no image in its train.txt.")
    else:
        items = pair_by_pattern(
            folder, image_pattern, label_pattern, sequences=read_sequences(sequences), allow_missing=allow_missing
        )
        items = [_with_sequences(with_options(item), names, allow_missing, folder) for item in items]
        cases = random_split(_with_patients(items, patient_pattern), split_shares, seed)
    refuse_shared_patients(cases, folder)
    protect([listed, *files_of(item for part in cases.values() for item in part)])
    counts = ", ".join(f"{len(part)} {split}" for split, part in cases.items())
    everything = [item for part in cases.values() for item in part]
    partial = sum(annotated_names(item) is not None for item in everything)
    if class_names is not None:
        partial = sum(not annotated_classes(item, class_names).all() for item in everything)
    known = {item["patient"] for item in everything if item.get("patient_known", True)}
    unknown = sum(not item.get("patient_known", True) for item in everything)
    whose = f" of {len(known)} patients" if known else " (no patients are named)"
    if known and unknown:
        whose += f" and {unknown} of unknown ones, each taken for a patient of its own"
    some = f", {partial} of them annotated for some classes only" if partial else ""
    logger.info("Cases%s: %s%s; split %s", whose, counts, some, split_hash(cases))
    return cases


def files_of(items: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the files and folders of some cases: images, and every file of a label."""
    for item in items:
        yield from (*image_files(item["image"]), *label_files(item["label"]))


def split_hash(cases: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Return a hash of which case is in which part of the split, by the names of the images: the same on every machine.

    Two runs may be compared only where it is the same.
    """
    root = _common_folder([item["image"] for items in cases.values() for item in items])
    lines = [
        f"{part} {Path(i['image']).relative_to(root).as_posix()}{choice_text(i)}\n"
        for part, items in cases.items()
        for i in items
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:12]


def case_names(cases: Sequence[Mapping[str, Any]], dataset_dir: str | Path) -> list[str]:
    """Return the path of every case's image below the folder of the data set, and which series there is meant.

    Where a data list names images outside its own folder, as the lists of folds do, paths are below the folder that all
    images share.
    """
    root, images = Path(dataset_dir).expanduser().resolve(), [case["image"] for case in cases]
    if not all(Path(image).is_relative_to(root) for image in images):
        root = _common_folder(images)
    return [f"{Path(case['image']).relative_to(root).as_posix()}{choice_text(case)}" for case in cases]


def _common_folder(images: Sequence[str]) -> Path:
    return Path(commonpath(images)) if len(set(images)) > 1 else Path(images[0]).parent


def _read_list(path: Path, sequences: Sequence[str], allow_missing: bool) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PyrasegError(f"The data list {path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or not content.get("training"):
        raise PyrasegError(f"The data list {path} has no cases under 'training'.")
    for split in SPLITS:
        if not isinstance(content.get(split, []), list):
            raise PyrasegError(f"The data list {path} has under {split!r} no list of cases.")
    cases = {
        split: [_with_sequences(_case(item, path), sequences, allow_missing, path) for item in content.get(split, [])]
        for split in SPLITS
    }
    items = [item for part in cases.values() for item in part]
    absent = [file for file in files_of(items) if not Path(file).exists()]
    if absent:
        raise PyrasegError(f"{len(absent)} of the paths in {path} do not exist, the first of them {absent[0]}.")
    return cases


def _case(item: dict, listed: Path) -> dict[str, Any]:
    image, label = (item.get("image"), item.get("label")) if isinstance(item, dict) else (None, None)
    masks = label if isinstance(label, dict) else {"": label}
    images = {name: path for name, path in image.items() if path} if isinstance(image, dict) else {"": image}
    if not images or not masks or not all(isinstance(path, str) for path in (*images.values(), *masks.values())):
        raise PyrasegError(
            f"An item of the data list {listed} lacks the path 'image' or 'label': {json.dumps(item)[:120]}."
        )
    images, masks = (
        {name: os.path.normpath(listed.parent / path) for name, path in paths.items()} for paths in (images, masks)
    )
    paths = {
        "image": images if isinstance(image, dict) else images[""],
        "label": masks if isinstance(label, dict) else masks[""],
    }
    patient = str("" if item.get("patient") is None else item["patient"]).strip()
    unknown = image if isinstance(image, str) else next(iter(item["image"].values()))
    whose = {"patient": patient} if patient else {"patient": unknown, "patient_known": False}
    return with_options({**item, **paths, **whose})


def _with_sequences(
    item: dict[str, Any], sequences: Sequence[str], allow_missing: bool, listed: Path
) -> dict[str, Any]:
    """Return an item of a list whose image has the sequences of the model, in their order.

    Raises:
        PyrasegError: it has others, or lacks one that may not be missing.
    """
    image = item["image"]
    named = list(image.parts) if isinstance(image, SequencePaths) else []
    if not sequences and not named:
        return item
    if not sequences:
        raise PyrasegError(
            f"The data list {listed} names the sequences {', '.join(named)} of {image}, and the model takes one image. "
            "Set sequences to those that it is to take."
        )
    wanted = ", ".join(sequences)
    if not named:
        raise PyrasegError(
            f"The model takes the sequences {wanted}, and the data list {listed} has one path for {image}. Make it "
            f'again: pyraseg datalist --sequences, or write "image": {{"{sequences[0]}": path, ...}}.'
        )
    lacking = [name for name in sequences if image.parts.get(name) is None]
    if lacking and (not allow_missing or sequences[0] in lacking):
        remedy = "Add it" if lacking[0] == sequences[0] else "Add it, or train with sequence_dropout above 0"
        raise PyrasegError(
            f"The case {image} of {listed} lacks the sequence {', '.join(lacking)} of {wanted}; it has "
            f"{', '.join(named)}. {remedy}; or correct sequences."
        )
    return {**item, "image": SequencePaths({name: image.parts.get(name) for name in sequences})}


def _with_patients(items: list[dict[str, Any]], pattern: str | None) -> list[dict[str, Any]]:
    """Return the items with the patients that a pattern finds in their names; without one nobody is known."""
    if pattern is None:
        return [{**item, "patient_known": False} for item in items]
    patients = patients_by_pattern([item["patient"] for item in items], pattern)
    return [{**item, "patient": patient} for item, patient in zip(items, patients, strict=True)]

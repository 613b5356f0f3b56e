# SPDX-License-Identifier: Apache-2.0
"""Data lists: which image belongs to which label, which patient and which part of the split."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from glob import escape
from os.path import commonpath
from pathlib import Path

import numpy as np

from bundle.pyraseg.data.phantom.study import write_phantom_study
from bundle.pyraseg.data.voc.layout import is_voc, read_lists
from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.processes import in_turn
from bundle.pyraseg.transforms.reader import ITK, NIFTI, PHOTOGRAPH

logger = logging.getLogger(__name__)

#: The parts of a three-way split, as MONAI's Decathlon lists name them.
SPLITS = ("training", "validation", "test")


def load_cases(
    dataset_dir: str | Path,
    *,
    phantom_dir: str | Path | None = None,
    image_pattern: str = "images/{case}",
    label_pattern: str = "labels/{case}",
    patient_pattern: str | None = None,
    split_shares: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> dict[str, list[dict[str, str]]]:
    """Return the cases of each part of the split, with absolute paths.

    `dataset_dir` holds a `datalist.json` in MONAI's Decathlon form, whose parts are `training`, `validation` and `test`
    and whose items are {"image": path, "label": path, "patient": group}, paths relative to the folder. Without that
    file it may be a Pascal VOC tree, whose `ImageSets/Segmentation` lists `train.txt`, `val.txt` and `test.txt` are the
    split. Else images and labels are paired by name and the patients split at random from `seed`. The split is logged
    with its hash.

    Args:
        dataset_dir: folder of the data set.
        phantom_dir: where the phantom study is written when `dataset_dir` is that very folder and does not exist.
        image_pattern: images below `dataset_dir` without a list; `{case}` stands for the name of a case, and a pattern
            that ends in it matches every suffix.
        label_pattern: their labels.
        patient_pattern: regular expression without a `datalist.json`; its first group, found in the name of a case, is
            the patient whom the case belongs to, such as "^(.+)[LR]$" for two eyes. None makes each pair a patient of
            its own.
        split_shares: shares of the patients in training, validation and test without a list.
        seed: of the split without a list.

    Raises:
        PyrasegError: the folder is absent or empty, a file of the list is absent, no image has a label, a case does not
            tell its patient, or a patient is in two parts of the split.
    """
    folder = Path(dataset_dir).expanduser().resolve()
    if phantom_dir is not None and folder == Path(phantom_dir).expanduser().resolve():
        with in_turn():
            if not folder.exists():
                logger.info("There is no data set yet: writing the phantom CT study to %s", folder)
                write_phantom_study(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise PyrasegError(f"The data set folder {folder} {what}. Correct dataset_dir.")
    if not any(folder.iterdir()):
        raise PyrasegError(
            f"The data set folder {folder} is empty. Put images and labels there, or correct dataset_dir."
        )
    listed = folder / "datalist.json"
    if listed.is_file():
        cases = _read_list(listed)
    elif is_voc(folder):
        cases = {part: _group(items, patient_pattern) for part, items in read_lists(folder).items()}
        if not cases["training"]:
            raise PyrasegError(f"The Pascal VOC tree {folder} lists no image in its train.txt.")
    else:
        pairs = _pair(folder, image_pattern, label_pattern)
        cases = split_by_patient(_group(pairs, patient_pattern), split_shares, seed)
    _refuse_leakage(cases, folder)
    counts = ", ".join(f"{len(part)} {split}" for split, part in cases.items())
    patients = len({item["patient"] for part in cases.values() for item in part})
    logger.info("Cases of %d patients: %s; split %s", patients, counts, split_hash(cases))
    return cases


def split_hash(cases: Mapping[str, Sequence[dict[str, str]]]) -> str:
    """Return a hash of which case is in which part of the split, by the names of the images: the same on every machine.

    Two runs may be compared only where it is the same.
    """
    images = [item["image"] for items in cases.values() for item in items]
    root = Path(commonpath(images)) if len(set(images)) > 1 else Path(images[0]).parent
    lines = [
        f"{part} {Path(i['image']).relative_to(root).as_posix()}\n" for part, items in cases.items() for i in items
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:12]


def _read_list(path: Path) -> dict[str, list[dict[str, str]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PyrasegError(f"The data list {path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or not content.get("training"):
        raise PyrasegError(f"The data list {path} has no cases under 'training'.")
    for split in SPLITS:
        if not isinstance(content.get(split, []), list):
            raise PyrasegError(f"The data list {path} has under {split!r} no list of cases.")
    cases = {split: [_case(item, path) for item in content.get(split, [])] for split in SPLITS}
    absent = [item[key] for part in cases.values() for item in part for key in ("image", "label")]
    absent = [file for file in absent if not Path(file).exists()]
    if absent:
        raise PyrasegError(f"{len(absent)} of the paths in {path} do not exist, the first of them {absent[0]}.")
    return cases


def _case(item: dict, listed: Path) -> dict[str, str]:
    if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("image", "label")):
        raise PyrasegError(
            f"An item of the data list {listed} lacks the path 'image' or 'label': {json.dumps(item)[:120]}."
        )
    folder = listed.parent
    paths = {key: str(folder / item[key]) for key in ("image", "label")}
    return {**item, **paths, "patient": str(item.get("patient", item["image"]))}


def _pair(folder: Path, image_pattern: str, label_pattern: str) -> list[dict[str, str]]:
    images = _match(folder, image_pattern, "image_pattern")
    labels = _match(folder, label_pattern, "label_pattern")
    pairs = [
        {"image": str(images[case]), "label": str(labels[case]), "patient": case}
        for case in sorted(images.keys() & labels.keys())
    ]
    if not pairs:
        raise PyrasegError(
            f"{folder} has neither a datalist.json nor an image with a label: {len(images)} images match "
            f"{image_pattern!r}, {len(labels)} labels match {label_pattern!r}, and no name is in both. "
            "Write a datalist.json, or correct image_pattern and label_pattern."
        )
    unpaired = sorted(images.keys() ^ labels.keys())
    if unpaired:
        logger.warning(
            "%d files in %s have no partner and are left out, such as %s", len(unpaired), folder, unpaired[0]
        )
    return pairs


def _match(folder: Path, pattern: str, option: str) -> dict[str, Path]:
    """Return the files and folders that match `pattern`, by the name that stands for `{case}`; hidden ones are none."""
    if pattern.count("{case}") != 1:
        raise PyrasegError(f"{option} must hold {{case}} once, in the place of a case's name, got {pattern!r}.")
    before, after = pattern.split("{case}")
    found = {}
    for path in sorted(folder.glob(f"{escape(before)}*{escape(after)}")):
        name = path.relative_to(folder).as_posix()[len(before) :]
        case = name.removesuffix(after) if after else _without_suffix(name)
        if name.startswith("."):
            continue
        if case in found:
            raise PyrasegError(f"Two files of {folder} stand for the case {case}: {found[case].name} and {path.name}.")
        found[case] = path
    return found


def _without_suffix(name: str) -> str:
    """Drop the suffix of an image format; other dots are part of a name, as in a UID."""
    suffixes = [suffix for suffix in (*NIFTI, *ITK, *PHOTOGRAPH, ".dcm") if name.lower().endswith(suffix)]
    return name[: -len(max(suffixes, key=len))] if suffixes else name


def _group(pairs: list[dict[str, str]], pattern: str | None) -> list[dict[str, str]]:
    """Return the pairs with the patient that `pattern` finds in the name of each; without one they stay as they are."""
    if pattern is None:
        return pairs
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise PyrasegError(f"patient_pattern {pattern!r} is no regular expression: {error}.") from error
    if expression.groups < 1:
        raise PyrasegError(f"patient_pattern {pattern!r} has no group: put what names the patient in parentheses.")
    found = [expression.search(pair["patient"]) for pair in pairs]
    silent = [pair["image"] for pair, match in zip(pairs, found, strict=True) if not (match and match.group(1))]
    if silent:
        raise PyrasegError(
            f"patient_pattern {pattern!r} finds no patient in the names of {len(silent)} cases, such as {silent[0]}."
        )
    return [{**pair, "patient": match.group(1)} for pair, match in zip(pairs, found, strict=True)]


def split_by_patient(
    items: Sequence[dict[str, str]], shares: Sequence[float], seed: int
) -> dict[str, list[dict[str, str]]]:
    """Return the items of each part of a split whose parts have given shares of the patients, at random from `seed`."""
    if len(shares) != len(SPLITS) or min(shares) < 0 or not np.isclose(sum(shares), 1):
        raise PyrasegError(f"split_shares must be three shares that sum to 1, got {list(shares)}.")
    patients = np.array(sorted({item["patient"] for item in items}))
    order = np.random.default_rng(seed).permutation(len(patients))
    ends = np.rint(np.cumsum(shares) * len(patients)).astype(int)
    parts = zip(SPLITS, np.split(order, ends[:-1]), strict=True)
    return {split: [item for item in items if item["patient"] in patients[part]] for split, part in parts}


def _refuse_leakage(cases: dict[str, list[dict[str, str]]], folder: Path) -> None:
    for first, second in (("training", "validation"), ("training", "test"), ("validation", "test")):
        both = {item["patient"] for item in cases[first]} & {item["patient"] for item in cases[second]}
        if both:
            raise PyrasegError(
                f"{len(both)} patients of the data set {folder} are in {first} and in {second}. "
                "Figures from such a split mean nothing: put each patient into one part."
            )

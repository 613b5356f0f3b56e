# SPDX-License-Identifier: Apache-2.0
"""Make the data list of a data set: pairs, patients, parts; refuse leaks; write the list, a manifest and a summary."""

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bundle.pyraseg.data.classes_present import classes_present
from bundle.pyraseg.data.datalist import split_hash
from bundle.pyraseg.data.duplicates import Duplicate, find_duplicates
from bundle.pyraseg.data.leakage import refuse_duplicates
from bundle.pyraseg.data.pairing import find_pairs
from bundle.pyraseg.data.patients import (
    are_dicom,
    join,
    patients_by_pattern,
    patients_from_csv,
    patients_from_dicom,
)
from bundle.pyraseg.data.splitting import SPLITS, check_shares, stratified_parts
from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.files import replacing

LIST, MANIFEST, SUMMARY = "datalist.json", "manifest.json", "summary.txt"
_REMEDY = (
    "Where they are one patient under two names, correct the names or join them (--merge-duplicates); where they are "
    "strangers, raise --threshold."
)


@dataclass(frozen=True)
class DataList:
    """The cases of a data set and what is known of them; sequences have the order of `items`.

    Attributes:
        layout: how pairs were found, in words.
        grouping: how patients were told apart, in words.
        items: {"image": path, "label": path, "patient": running number}.
        sources: what each running number stands for: the name in the file, the table or of the case.
        classes: that each label holds.
        duplicates: pairs of images that are the same or nearly so.
    """

    layout: str
    grouping: str
    items: list[dict[str, str]]
    sources: list[str]
    classes: list[set[str]]
    duplicates: list[Duplicate]


def collect_cases(
    folder: Path,
    *,
    image_pattern: str | None = None,
    label_pattern: str | None = None,
    patient_pattern: str | None = None,
    patient_csv: Path | None = None,
    no_patients: bool = False,
    merge_duplicates: bool = False,
    threshold: float,
    label_threshold: float | None = None,
    unknown_value: int | None = None,
) -> DataList:
    """Find the cases of a data set, whose they are, what they hold, and which are the same.

    Patients come from a pattern, a table, or the headers of DICOM images. Without any of them each case is a patient
    of its own (DICOM: each study), except that images which are the same or nearly so are one patient.

    Args:
        folder: of the data set.
        image_pattern: with `label_pattern`, instead of the layouts of `find_pairs`.
        label_pattern: see there.
        patient_pattern: regular expression whose first group, in a case's name, is the patient.
        patient_csv: table with the columns case and patient.
        no_patients: do not ask DICOM headers for the Patient ID.
        merge_duplicates: make one patient of those who share an image.
        threshold: correlation from which on two images are nearly the same.
        label_threshold: values of blurred masks from here on are class 1.
        unknown_value: value of pixels that nobody has labelled.

    Raises:
        PyrasegError: there are no pairs, patients are not told apart, or a file cannot be read.
    """
    layout, items = find_pairs(folder, image_pattern=image_pattern, label_pattern=label_pattern)
    if layout == "Pascal VOC" and unknown_value is None:
        unknown_value = 255
    cases = [item["patient"] for item in items]
    known = True
    if patient_pattern is not None:
        grouping, patients = f"the pattern {patient_pattern}", patients_by_pattern(items, patient_pattern)
    elif patient_csv is not None:
        grouping, patients = f"the table {patient_csv.name}", patients_from_csv(items, patient_csv)
    elif are_dicom(items):
        known = not no_patients
        grouping = "Patient ID, study and frame of reference" if known else "study and frame of reference"
        patients = patients_from_dicom(items, use_patient_id=known)
    else:
        grouping, patients, known = "none: each case is a patient of its own", cases, False
    duplicates = find_duplicates([item["image"] for item in items], threshold=threshold)
    merged = duplicates if merge_duplicates or not known else []
    if merged:
        grouping += ", joined where images are the same or nearly so"
    names = join([[patient] for patient in patients], [(pair.first, pair.second) for pair in merged])
    classes = [
        classes_present(item["label"], threshold=label_threshold, unknown_value=unknown_value)
        for item in tqdm(items, desc="Reading labels", unit="label", disable=None)
    ]
    return DataList(
        layout,
        grouping,
        [{**item, "patient": name} for item, name in zip(items, names, strict=True)],
        patients if known and not are_dicom(items) else cases,
        classes,
        duplicates,
    )


def write_split(
    data: DataList, folder: Path, output: Path, *, shares: Sequence[float], seed: int, overwrite: bool = False
) -> str:
    """Split three ways and write the list, the manifest and the summary; return the summary.

    Raises:
        PyrasegError: there is a list already, there are too few patients, or an image is in two parts.
    """
    check_shares(shares)
    _refuse_overwriting([output / LIST], overwrite)
    parts = _parts(data, shares, seed)
    cases = {name: [item for item, part in zip(data.items, parts, strict=True) if part == name] for name in SPLITS}
    _refuse_leaks(cases, data, parts, folder)
    summary = summarise(data, parts, SPLITS, folder, [f"split {split_hash(cases)}, seed {seed}"])
    _write(output, {Path(LIST): cases}, data, summary, {"seed": seed, "shares": list(shares)})
    return summary


def write_folds(data: DataList, folder: Path, output: Path, *, folds: int, seed: int, overwrite: bool = False) -> str:
    """Split into folds and write a list for each: fold i tests on part i, validates on the next, trains on the rest.

    The lists are `fold_0/datalist.json` and so on; each of these folders is a data set to train on. Manifest and
    summary are written once, beside them.

    Raises:
        PyrasegError: as `write_split`, or fewer than three folds are asked for.
    """
    if folds < 3:
        raise PyrasegError(f"{folds} folds leave no part to train on beside validation and test; ask for 3 or more.")
    _refuse_overwriting([output / f"fold_{fold}" / LIST for fold in range(folds)], overwrite)
    names = [f"fold_{fold}" for fold in range(folds)]
    parts = _parts(data, [1 / folds] * folds, seed, names)
    tested = {name: [item for item, part in zip(data.items, parts, strict=True) if part == name] for name in names}
    _refuse_leaks(tested, data, parts, folder)
    lists = {}
    for fold, name in enumerate(names):
        validating = names[(fold + 1) % folds]
        training = [item for other in names if other not in (name, validating) for item in tested[other]]
        lists[Path(name) / LIST] = dict(zip(SPLITS, (training, tested[validating], tested[name]), strict=True))
    splits = [f"{path.parent.name}: split {split_hash(cases)}, seed {seed}" for path, cases in lists.items()]
    summary = summarise(data, parts, names, folder, splits)
    _write(output, lists, data, summary, {"seed": seed, "folds": folds})
    return summary


def write_link(data: DataList, path: Path) -> None:
    """Write which running number stands for which patient: a file that stays where the patients' names may be."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "source", "image"])
        for item, source in zip(data.items, data.sources, strict=True):
            writer.writerow([item["patient"], source, item["image"]])


def summarise(data: DataList, parts: Sequence[str], names: Sequence[str], folder: Path, splits: Sequence[str]) -> str:
    """Return a table of parts, with their cases, their patients and the cases that hold each class, and duplicates."""
    kinds = sorted({kind for held in data.classes for kind in held}, key=lambda kind: (len(kind), kind))
    wide = max(len(name) for name in (*names, "part"))
    header = ["cases", "patients", *(f"with {kind}" for kind in kinds), "with none"]
    lines = [
        f"{folder.name}: {len(data.items)} cases of {len({item['patient'] for item in data.items})} patients",
        f"pairs: {data.layout}",
        f"patients: {data.grouping}",
        *splits,
        "",
        f"{'part':{wide}}  " + "  ".join(header),
    ]
    for name in names:
        inside = [index for index, part in enumerate(parts) if part == name]
        holding = [sum(kind in data.classes[index] for index in inside) for kind in kinds]
        patients = {data.items[index]["patient"] for index in inside}
        row = [len(inside), len(patients), *holding, sum(not data.classes[index] for index in inside)]
        lines.append(f"{name:{wide}}  " + "  ".join(f"{n:{len(title)}}" for n, title in zip(row, header, strict=True)))
    lines += ["", f"{len(data.duplicates)} pairs of images are the same or nearly so"]
    for pair in data.duplicates:
        first, second = (os.path.relpath(data.items[index]["image"], folder) for index in (pair.first, pair.second))
        lines.append(f"  {first} and {second}: {pair}")
    return "\n".join(lines)


def changed_files(manifest: Path) -> list[str]:
    """Return what has become of the files that a manifest lists, one line for each that is no longer the same.

    Raises:
        PyrasegError: the file is no manifest.
    """
    try:
        hashes = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        listed = sorted((name, str(value)) for name, value in hashes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PyrasegError(f'{manifest} is no manifest: it holds no "files" with their hashes.') from error
    changed = []
    for name, value in tqdm(listed, desc="Comparing hashes", unit="file", disable=None):
        path = manifest.parent / name
        if not path.is_file():
            changed.append(f"{name} is gone")
        elif _sha256(path) != value:
            changed.append(f"{name} has changed")
    return changed


def _parts(data: DataList, shares: Sequence[float], seed: int, names: Sequence[str] = SPLITS) -> list[str]:
    patients = [item["patient"] for item in data.items]
    return [names[part] for part in stratified_parts(patients, data.classes, shares, seed)]


def _refuse_overwriting(paths: Sequence[Path], overwrite: bool) -> None:
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise PyrasegError(f"{there[0]} exists. Give --overwrite to replace it, or another --output-dir.")


def _refuse_leaks(
    cases: Mapping[str, Sequence[dict[str, str]]], data: DataList, parts: Sequence[str], folder: Path
) -> None:
    """Refuse duplicates in two parts. Patients cannot be: the split is one of patients."""
    order = [index for name in cases for index, part in enumerate(parts) if part == name]
    place = {index: position for position, index in enumerate(order)}
    moved = [Duplicate(place[p.first], place[p.second], p.score, p.exact) for p in data.duplicates]
    refuse_duplicates(cases, moved, folder, remedy=_REMEDY)


def _write(output: Path, lists: Mapping[Path, Mapping], data: DataList, summary: str, settings: dict) -> None:
    """Write all files, the lists last: what a training reads is there only when everything is."""
    files = {}
    for path in tqdm(_files(data), desc="Hashing", unit="file", disable=None):
        files[Path(os.path.relpath(path, output)).as_posix()] = _sha256(path)
    _write_text(output / MANIFEST, json.dumps({**settings, "files": files}, indent=2) + "\n")
    _write_text(output / SUMMARY, summary + "\n")
    for path, cases in lists.items():
        folder = (output / path).parent
        content = {
            part: [
                {**item, **{key: Path(os.path.relpath(item[key], folder)).as_posix() for key in ("image", "label")}}
                for item in items
            ]
            for part, items in cases.items()
        }
        counts = {"numTraining": len(content["training"]), "numTest": len(content["test"])}
        _write_text(output / path, json.dumps({**counts, **content}, indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _files(data: DataList) -> list[Path]:
    paths = sorted({Path(item[key]) for item in data.items for key in ("image", "label")})
    return [
        file
        for path in paths
        for file in (sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

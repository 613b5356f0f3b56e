# SPDX-License-Identifier: Apache-2.0
"""Make a data list of the cases that were collected: split, refuse leaks, write the list, a manifest and a summary."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bundle.pyraseg.core import (
    DiskError,
    PyrasegError,
    SequencePaths,
    file_digest,
    require_writable,
    write_csv,
    write_json,
    write_text,
)
from bundle.pyraseg.datalists.annotations import count_annotated
from bundle.pyraseg.datalists.collecting import DataList
from bundle.pyraseg.datalists.datalist import files_of, split_hash
from bundle.pyraseg.datalists.duplicates import Duplicate
from bundle.pyraseg.datalists.look_alikes import LookAlike
from bundle.pyraseg.datalists.splitting import NAMED, SPLITS, check_shares, refuse_duplicates, stratified_parts

LIST, SUMMARY, MANIFEST, PAIRS = "datalist.json", "summary.txt", "manifest.json", "duplicates.csv"
LOOK_ALIKES = "look_alikes.csv"
_REMEDY = (
    "Where they are one patient under two names, correct the names or join them (--merge-duplicates); where they are "
    "strangers, raise --threshold."
)


def check_request(
    output: Path,
    *,
    seed: int,
    shares: Sequence[float] | None = None,
    folds: int | None = None,
    overwrite: bool = False,
    link: Path | None = None,
) -> None:
    """Refuse what cannot be written, before anything is read: the arguments are those of the functions that write.

    Raises:
        PyrasegError: the shares, the folds or the seed make no split, or a file is in the way.
    """
    if shares is not None:
        check_shares(shares)
    if folds is not None and folds < 3:
        raise PyrasegError(f"{folds} folds leave no training part besides validation and test; give 3 or more.")
    if seed < 0:
        raise PyrasegError(f"The seed must be an integer of at least 0, not {seed}.")
    for path in (output, *output.parents):
        if path.exists() and not path.is_dir():
            raise PyrasegError(f"{path} is a file, not a folder. Give another --output-dir.")
    try:
        require_writable([output])
    except DiskError as error:
        raise DiskError(f"{error} For the list, name it by --output-dir: the data may stay where they are.") from error
    names = [Path(LIST)] if folds is None else [Path(f"fold_{fold}") / LIST for fold in range(folds)]
    there = [output / name for name in names if (output / name).exists()]
    if there and not overwrite:
        raise PyrasegError(f"{there[0]} exists. Give --overwrite to replace it, or another --output-dir.")
    if link is not None and link.is_dir():
        raise PyrasegError(f"{link} is a folder. Give a file for --link.")


def write_split(
    data: DataList, folder: Path, output: Path, *, shares: Sequence[float], seed: int, overwrite: bool = False
) -> str:
    """Split three ways and write the list, the manifest and the summary; return the summary.

    Raises:
        PyrasegError: there is a list already, there are too few patients, or an image is in two parts.
    """
    check_request(output, shares=shares, seed=seed, overwrite=overwrite)
    parts = _parts(data, folder, shares, seed)
    cases = {name: [item for item, part in zip(data.items, parts, strict=True) if part == name] for name in SPLITS}
    _refuse_leaks(cases, data, parts, folder)
    summary = summarize(data, parts, SPLITS, folder, [f"split {split_hash(cases)}, seed {seed}"])
    _write(output, {Path(LIST): cases}, data, summary, {"seed": seed, "shares": list(shares)})
    return summary


def write_folds(data: DataList, folder: Path, output: Path, *, folds: int, seed: int, overwrite: bool = False) -> str:
    """Split into folds and write a list for each: fold i tests on part i, validates on the next, trains on the rest.

    The lists are `fold_0/datalist.json` and so on; each of these folders is a data set to train on. Manifest and
    summary are written once, beside them.

    Raises:
        PyrasegError: as `write_split`, or fewer than three folds are asked for.
    """
    check_request(output, folds=folds, seed=seed, overwrite=overwrite)
    names = [f"fold_{fold}" for fold in range(folds)]
    parts = _parts(data, folder, [1 / folds] * folds, seed, names)
    tested = {name: [item for item, part in zip(data.items, parts, strict=True) if part == name] for name in names}
    _refuse_leaks(tested, data, parts, folder)
    lists = {}
    for fold, name in enumerate(names):
        validating = names[(fold + 1) % folds]
        training = [item for other in names if other not in (name, validating) for item in tested[other]]
        lists[Path(name) / LIST] = dict(zip(SPLITS, (training, tested[validating], tested[name]), strict=True))
    splits = [f"{path.parent.name}: split {split_hash(cases)}, seed {seed}" for path, cases in lists.items()]
    summary = summarize(data, parts, names, folder, splits)
    _write(output, lists, data, summary, {"seed": seed, "folds": folds})
    return summary


def write_link(data: DataList, path: Path) -> None:
    """Write which running number stands for which patient: a file that stays where the patients' names may be."""
    rows = [{**item, "source": source} for item, source in zip(data.items, data.sources, strict=True)]
    write_csv(path, ["patient", "source", "image"], rows)


def summarize(data: DataList, parts: Sequence[str], names: Sequence[str], folder: Path, splits: Sequence[str]) -> str:
    """Return a table of parts, with their cases, their patients and the cases that hold each class, and duplicates.

    Where some cases were annotated for some classes only, a second table has how many were for each in every part.
    """
    kinds = sorted({kind for held in data.classes for kind in held}, key=lambda kind: (len(kind), kind))
    wide = max(len(name) for name in (*names, "part"))
    header = ["cases", "patients", *(f"with {kind}" for kind in kinds), "with none"]
    lines = [
        f"{folder.name}: {len(data.items)} cases of {len({item['patient'] for item in data.items})} patients",
        f"pairs: {data.layout}",
        f"patients: {data.grouping}",
        *splits,
        *([f"classes: {_stated(data)}"] if data.class_names else []),
        "",
        f"{'part':{wide}}  " + "  ".join(header),
    ]
    for name in names:
        inside = [index for index, part in enumerate(parts) if part == name]
        holding = [sum(kind in data.classes[index] for index in inside) for kind in kinds]
        patients = {data.items[index]["patient"] for index in inside}
        row = [len(inside), len(patients), *holding, sum(not data.classes[index] for index in inside)]
        lines.append(f"{name:{wide}}  " + "  ".join(f"{n:{len(title)}}" for n, title in zip(row, header, strict=True)))
    lines += _annotated(data, parts, names)
    lines += ["", *_same(data, folder)]
    if len(data.duplicates) > NAMED:
        lines[-1] += f": all are in {PAIRS}"
    return "\n".join(lines + _alike(data))


def _same(data: DataList, folder: Path) -> list[str]:
    """Return lines with the pairs of images that are the same or nearly so, the first of them by name."""
    lines = [f"{len(data.duplicates)} pairs of images are the same or nearly so"]
    for pair in data.duplicates[:NAMED]:
        first, second = (os.path.relpath(data.items[index]["image"], folder) for index in (pair.first, pair.second))
        lines.append(f"  {first} and {second}: {pair}")
    if len(data.duplicates) > NAMED:
        lines.append(f"  and {len(data.duplicates) - NAMED} more")
    return lines


def _alike(data: DataList) -> list[str]:
    """Return lines about pictures that look like frames of one scan; none where they were not looked for."""
    if data.look_alikes is None:
        return []
    found = data.look_alikes
    sizes = Counter(item["patient"] for item in data.items)
    groups = [size for size in sizes.values() if size > 1]
    return [
        "",
        f"{len(found.pairs)} pairs of pictures look like frames of one scan, by a correlation of {found.least:.2f} or "
        f"more (strangers: {found.usual:.2f}): all are in {LOOK_ALIKES}",
        f"  {sum(groups)} cases are in {len(groups)} groups, the largest of {max(groups, default=0)}",
    ]


def _annotated(data: DataList, parts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return lines with the cases of each part that were annotated for each class; none where all were for all."""
    partial = sum("annotated" in item for item in data.items)
    if not partial:
        return []
    wide = max(len(name) for name in (*names, "part"))
    classes = list(count_annotated(data.items))
    header = ["all", *classes]
    lines = ["", f"{partial} of {len(data.items)} cases were annotated for some classes only:", ""]
    lines.append(f"{'part':{wide}}  " + "  ".join(header))
    for name in names:
        items = [item for item, part in zip(data.items, parts, strict=True) if part == name]
        of_all = sum("annotated" not in item for item in items)
        counts = count_annotated(items)
        row = [of_all, *(of_all + counts.get(kind, 0) for kind in classes)]
        lines.append(f"{name:{wide}}  " + "  ".join(f"{n:{len(title)}}" for n, title in zip(row, header, strict=True)))
    return lines


def _stated(data: DataList) -> str:
    """Return what a `dataset.json` says of the values of labels, in the form in which a training takes it."""
    values = sorted(data.class_names)
    if values == list(range(len(values))):
        text = f"class_names {json.dumps([data.class_names[value] for value in values], ensure_ascii=False)}"
    else:
        text = ", ".join(f"{value} is {data.class_names[value]}" for value in values)
    return text + ("" if data.unknown_value is None else f"; value {data.unknown_value} is unlabeled (unknown_value)")


def _parts(
    data: DataList, folder: Path, shares: Sequence[float], seed: int, names: Sequence[str] = SPLITS
) -> list[str]:
    patients = [item["patient"] for item in data.items]
    try:
        return [names[part] for part in stratified_parts(patients, data.classes, shares, seed)]
    except PyrasegError as error:
        if not data.duplicates and data.look_alikes is None:
            raise
        # Copies and look-alikes may be why there are so few patients.
        lines = [str(error), f"patients: {data.grouping}", *_same(data, folder), *_alike(data)]
        raise PyrasegError("\n".join(lines)) from error


def _refuse_leaks(
    cases: Mapping[str, Sequence[dict[str, Any]]], data: DataList, parts: Sequence[str], folder: Path
) -> None:
    """Refuse duplicates in two parts. Patients cannot be: the split is one of patients."""
    order = [index for name in cases for index, part in enumerate(parts) if part == name]
    place = {index: position for position, index in enumerate(order)}
    moved = [Duplicate(place[p.first], place[p.second], p.score, p.exact) for p in data.duplicates]
    refuse_duplicates(cases, moved, folder, remedy=_REMEDY)


def _write(output: Path, lists: Mapping[Path, Mapping], data: DataList, summary: str, settings: dict) -> None:
    """Write all files, the lists last: what a training reads is there only when everything is."""
    write_manifest(output, files_of(data.items), settings)
    write_text(output / SUMMARY, summary + "\n")
    _write_pairs(output, data)
    _write_look_alikes(output, data)
    for path, cases in lists.items():
        folder = (output / path).parent
        content = {
            part: [{**item, **{key: _relative(item[key], folder) for key in ("image", "label")}} for item in items]
            for part, items in cases.items()
        }
        labels = {str(value): name for value, name in sorted(data.class_names.items())}
        counts = {"numTraining": len(content["training"]), "numTest": len(content["test"])}
        write_json(output / path, {**({"labels": labels} if labels else {}), **counts, **content})


def _relative(path: Any, folder: Path) -> str | dict[str, str]:
    """Return a path relative to a folder; those of several sequences by their names."""
    if isinstance(path, SequencePaths):
        return {name: Path(os.path.relpath(str(part), folder)).as_posix() for name, part in path.parts.items() if part}
    return Path(os.path.relpath(path, folder)).as_posix()


def _write_pairs(output: Path, data: DataList) -> None:
    """Write a CSV with a row for each pair of images that are the same or nearly so, the most alike first."""
    rows = [
        {**_images(output, data, pair), "correlation": round(pair.score, 4), "same_pixels": pair.exact}
        for pair in data.duplicates
    ]
    write_csv(output / PAIRS, ["first", "second", "correlation", "same_pixels"], rows)


def _write_look_alikes(output: Path, data: DataList) -> None:
    """Write a CSV with a row for each pair of pictures that look like frames of one scan, if they were looked for.

    A file of an earlier list is removed.
    """
    if data.look_alikes is None:
        (output / LOOK_ALIKES).unlink(missing_ok=True)
        return
    rows = [
        {**_images(output, data, pair), "correlation": round(pair.correlation, 4)} for pair in data.look_alikes.pairs
    ]
    write_csv(output / LOOK_ALIKES, ["first", "second", "correlation"], rows)


def _images(output: Path, data: DataList, pair: Duplicate | LookAlike) -> dict[str, str]:
    """Return the paths of the two images of a pair, relative to the folder of the list."""
    pairs = {"first": pair.first, "second": pair.second}
    return {key: Path(os.path.relpath(data.items[i]["image"], output)).as_posix() for key, i in pairs.items()}


def write_manifest(folder: Path, paths: Iterable[str | Path], settings: Mapping[str, Any]) -> None:
    """Write `manifest.json`: the settings, and under "files" a hash for each file, by its path relative to the folder.

    Args:
        folder: to write to.
        paths: files, and folders whose files all count.
        settings: what the list was made with.
    """
    listed = [
        file
        for path in sorted({Path(path) for path in paths})
        for file in (sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])
    ]
    hashes = {
        Path(os.path.relpath(file, folder)).as_posix(): file_digest(file)
        for file in tqdm(listed, desc="Hashing", unit="file", disable=None)
    }
    write_json(folder / MANIFEST, {**settings, "files": hashes}, indent=2)


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
        elif file_digest(path) != value:
            changed.append(f"{name} has changed")
    return changed

# SPDX-License-Identifier: Apache-2.0
"""The layout of nnU-Net, and the names of classes in its `dataset.json` and that of the Decathlon.

Version 2 writes imagesTr/CASE_0000.nii.gz, one file for each channel of a case, and labelsTr/CASE.nii.gz; its
`dataset.json` lists no pairs (https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md).
Version 1 lists them as the Decathlon does, without the channel in the names of the images.
"""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import PHOTOGRAPH, PyrasegError
from bundle.pyraseg.datalists.sequences import NoSequences, Sequences
from bundle.pyraseg.dicom import match_sequences

logger = logging.getLogger(__name__)

#: The class that stands for pixels that nobody has labeled.
IGNORE = "ignore"


def is_nnunet(content: Any) -> bool:
    """Return whether the content of a `dataset.json` is one of nnU-Net's version 2."""
    return (
        isinstance(content, Mapping)
        and "training" not in content
        and isinstance(content.get("labels"), Mapping)
        and not content.keys().isdisjoint(("channel_names", "modality", "file_ending", "dataset"))
    )


def find_nnunet(
    folder: Path, content: Mapping[str, Any], *, sequences: Sequences = NoSequences, allow_missing: bool = False
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return the images and the labels of nnU-Net's version 2, each by the name of the case.

    Args:
        folder: of the data set.
        content: of its `dataset.json`.
        sequences: what `read_sequences` returned: channels that are wanted, called as "channel_names" calls them, or by
            their numbers, such as 0001. Each image is then {"image": {name: path}}.
        allow_missing: a case may lack the file of a channel but the first.

    Raises:
        PyrasegError: a case has several channels and none are chosen, or lacks one of them, or files are not where they
            should be.
    """
    ending = str(content.get("file_ending") or ".nii.gz")
    channels: dict[str, dict[int, Path]] = {}
    labels: dict[str, Path] = {}
    if isinstance(content.get("dataset"), Mapping):  # it lists files wherever they are
        for case, files in content["dataset"].items():
            paths = [Path(os.path.normpath(folder / str(name))) for name in files["images"]]
            channels[case], labels[case] = dict(enumerate(paths)), Path(os.path.normpath(folder / str(files["label"])))
            absent = [path for path in (*paths, labels[case]) if not path.is_file()]
            if absent:
                raise PyrasegError(
                    f"{folder / 'dataset.json'} lists {absent[0]}, which is absent. Unpack the set again."
                )
    else:
        for name in ("imagesTr", "labelsTr"):
            if not (folder / name).is_dir():
                raise PyrasegError(
                    f"{folder / 'dataset.json'} is one of nnU-Net, but {folder} has no folder {name}. Put the files "
                    "there, or give an image pattern and a label pattern."
                )
        for path in _files(folder / "imagesTr", ending):
            if match := re.fullmatch(r"(.+)_(\d{4})", path.name.removesuffix(ending)):
                channels.setdefault(match[1], {})[int(match[2])] = path
        labels = {path.name.removesuffix(ending): path for path in _files(folder / "labelsTr", ending)}
        if not channels.keys() & labels.keys():
            raise PyrasegError(
                f"{folder} has no image imagesTr/CASE_0000{ending} with a label labelsTr/CASE{ending}, as its "
                f"dataset.json says: {len(channels)} images and {len(labels)} labels are called so. Correct "
                "file_ending there, or give an image pattern and a label pattern."
            )
        left_out = len(_files(folder / "imagesTs", ending)) if (folder / "imagesTs").is_dir() else 0
        if left_out:
            logger.warning("%d files in %s are left out: only imagesTr is read", left_out, folder / "imagesTs")
    if sequences:
        return _chosen(folder, content, channels, sequences, allow_missing), labels
    require_one_channel(content, max(len(files) for files in channels.values()), ending)
    return {case: next(iter(files.values())) for case, files in channels.items()}, labels


def _chosen(
    folder: Path,
    content: Mapping[str, Any],
    channels: Mapping[str, Mapping[int, Path]],
    sequences: Sequences,
    allow_missing: bool,
) -> dict[str, dict[str, dict[str, str]]]:
    """Return for each case the files of the channels that the sequences are."""
    names = channel_names(content)
    called = {f"{number:04d} {name}": [f"{number:04d}", name] for number, name in enumerate(names)}
    numbers, fault = match_sequences(called, sequences, what="channels", allow_missing=False)
    if fault:
        raise PyrasegError(f"{folder / 'dataset.json'} {fault}")
    chosen = {name: list(called).index(channel) for name, channel in numbers.items() if channel is not None}
    first, *_ = chosen
    images = {}
    for case, files in channels.items():
        lacking = [name for name, number in chosen.items() if number not in files]
        if lacking and (not allow_missing or first in lacking):
            raise PyrasegError(
                f"The case {case} of {folder} lacks the sequence {lacking[0]}: no file of the channel "
                f"{chosen[lacking[0]]:04d}. Add it, or leave the case out."
            )
        images[case] = {"image": {name: str(files[number]) for name, number in chosen.items() if number in files}}
    return images


def channel_names(content: Mapping[str, Any]) -> list[str]:
    """Return the names of the channels of each case, as a `dataset.json` states them, in their order."""
    stated = content.get("channel_names") or content.get("modality")
    return [str(name) for name in stated.values()] if isinstance(stated, Mapping) else []


def require_one_channel(content: Mapping[str, Any], found: int, ending: str) -> None:
    """Refuse a set of nnU-Net whose cases have several images, such as T1 and T2; `found` is their number.

    Raises:
        PyrasegError: the message says how to choose one.
    """
    names = channel_names(content)
    rgb = found == 1 and ending.lower().endswith(PHOTOGRAPH)  # nnU-Net counts the colors of one picture as channels
    count = 1 if rgb else max(found, len(names))
    if count > 1:
        words = " ".join(f"{_word(name)}={number:04d}" for number, name in enumerate(names or ["first", "second"]))
        raise PyrasegError(
            f"Each case has {count} channels in files of their own ({', '.join(names) or 'no names'}), and one image a "
            f'case is read. Choose one: --image-pattern "imagesTr/{{case}}_0000{ending}" --label-pattern '
            f'"labelsTr/{{case}}{ending}" takes the first{f" ({names[0]})" if names else ""}. Or read several: '
            f'--sequences {words} --image-pattern "imagesTr/{{case}}" --label-pattern "labelsTr/{{case}}".'
        )


def stated_classes(content: Mapping[str, Any]) -> tuple[dict[int, str], int | None]:
    """Return the names of classes by their values, and the value of pixels that nobody has labeled.

    Regions, which are several values each, name no class: a label map holds the values.

    >>> stated_classes({"labels": {"background": 0, "liver": 1, "ignore": 2}})
    ({0: 'background', 1: 'liver'}, 2)
    >>> stated_classes({"labels": {"0": "background", "1": "liver"}})
    ({0: 'background', 1: 'liver'}, None)
    """
    labels = content.get("labels")
    names: dict[int, str] = {}
    regions = []
    for key, value in labels.items() if isinstance(labels, Mapping) else ():
        if isinstance(value, list):
            regions.append(str(key))
        elif isinstance(value, str) and str(key).isdigit():
            names[int(key)] = value
        elif isinstance(value, int):
            names[value] = str(key)
    if regions:
        logger.warning(
            "The regions %s of dataset.json are unions of values and name no class: the classes are the values in the "
            "label maps. Give them names of their own in class_names.",
            ", ".join(regions),
        )
    unknown = next((value for value, name in names.items() if name.lower() == IGNORE), None)
    return {value: name for value, name in names.items() if value != unknown}, unknown


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower() or "channel"


def _files(folder: Path, ending: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(ending) and not path.name.startswith("."))

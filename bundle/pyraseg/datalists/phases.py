# SPDX-License-Identifier: Apache-2.0
"""Which phase of an image a label is of: by the images that a SEG refers to, by its name, or by its volumes."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import NIFTI, PyrasegError, volume_count
from bundle.pyraseg.dicom import Phases, Series, find_phases, sound_uid
from bundle.pyraseg.labels import StructureSet, open_label, read_references, with_options
from bundle.pyraseg.transforms import stored_label

logger = logging.getLogger(__name__)

#: What the label of one phase is called: the name of its image, and the number of the phase.
OF_PHASE = re.compile(r"(.+)_phase0*([1-9]\d*)")


def phases_of(series: Series, select: Mapping[str, object]) -> Phases | None:
    """Return the phases of a series, or None where it is one stack, or why it is not is told when it is read."""
    try:
        return find_phases(series, select)
    except PyrasegError as error:
        logger.info("%s", error)
        return None


def labels_by_phase(series: Series, phases: Phases, labels: Sequence[Path]) -> dict[int, Path]:
    """Return the label of each phase that has one, by the image frames that it refers to.

    Raises:
        PyrasegError: a label refers to none or to several of the phases, or a phase has two labels.
    """
    found: dict[int, Path] = {}
    for path in labels:
        numbers = _phases_named(phases, path)
        if len(numbers) != 1:
            which = f"images of its phases {', '.join(map(str, numbers))}" if numbers else "no images of it"
            raise PyrasegError(
                f"{path} refers to the series {series}, which has {phases}, and to {which}: which phase it was drawn "
                "on is unknown. Give a label for each phase, or write a data list that says it under 'phase'."
            )
        if (other := found.setdefault(numbers[0], path)) != path:
            raise PyrasegError(
                f"Phase {numbers[0]} of the series {series} has two labels: {other} and {path}. Move one away."
            )
    return dict(sorted(found.items()))


def _phases_named(phases: Phases, path: Path) -> list[int]:
    """Return the numbers of the phases whose images a label refers to; of a multi-frame one, its frames tell."""
    named = {(uid, 0) for uid in read_references(path).sop_instances}
    label = open_label(path)
    if not isinstance(label, StructureSet):
        named |= {(sound_uid(uid), number) for uid, number in label.sources if number}
    framed = {uid for uid, number in named if number}
    found = []
    for phase in phases.phases:
        own = [(sound_uid(frame.header.get("SOPInstanceUID")), frame.index + 1) for frame in phase.frames]
        if any((uid, number) in named or (uid not in framed and (uid, 0) in named) for uid, number in own):
            found.append(phase.number)
    return found


def pair_phases(images: Mapping[str, Path], labels: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the items whose label is of one phase: called CASE_phase03, or one of the volumes of a NIfTI.

    Of a NIfTI with as many volumes as its image, or of a folder's image, the volumes with a class are the labels; the
    others are told of and left out.

    Args:
        images: by the names of cases.
        labels: by the names of cases, or of cases with the phase behind.
    """
    items = []
    for name, label in sorted(labels.items()):
        match = OF_PHASE.fullmatch(name)
        if name not in images and match and match[1] in images:
            items.append(_item(images[match[1]], label, match[1], int(match[2])))
        elif name in images and (count := _volumes_for(images[name], label)) > 1:
            drawn = [number for number in range(1, count + 1) if stored_label(label, phase=number)[0].any()]
            items += [_item(images[name], label, name, number) for number in drawn]
            if len(drawn) < count:
                logger.warning("%d of %d phases of %s are not drawn and left out", count - len(drawn), count, label)
    return items


def _volumes_for(image: Path, label: Path) -> int:
    """Return how many phases a label has that its image has, too; 1 where it is a label of one volume."""
    count = volume_count(label) if label.name.lower().endswith(NIFTI) and label.is_file() else 1
    has_them = image.is_dir() or (image.name.lower().endswith(NIFTI) and volume_count(image) == count)
    return count if has_them else 1


def _item(image: Path, label: Path, case: str, phase: int) -> dict[str, Any]:
    item = {"image": str(image), "label": str(label), "patient": case, "phase": str(phase)}
    return with_options(item)

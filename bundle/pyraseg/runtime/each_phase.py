# SPDX-License-Identifier: Apache-2.0
"""Inputs that hold several phases, as inputs of one phase each."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bundle.pyraseg.core import NIFTI, PyrasegError, describe, volume_count

if TYPE_CHECKING:
    from bundle.pyraseg.dicom import Series


def in_phases(
    item: dict[str, Any], phase: int | str, *, series: "Series | None" = None, select: Any = None
) -> Iterator[dict[str, Any]]:
    """Yield the inputs that an input is made of, named NAME_phase03 and so on; itself where it is one stack.

    Args:
        item: {"image": ..., "name": ...}, see `find_inputs`.
        phase: the number of the one to take, or "all".
        series: that the input is, if it is DICOM.
        select: which slices of a series are read.
    """
    image = item["image"]
    try:
        parts = _of_nifti(image) if isinstance(image, str) else _of_series(series, select) if series else {}
    except PyrasegError as error:
        yield {"fault": describe(error), "name": item["name"]}
        return
    if not parts:
        yield item
        return
    digits = max(2, len(str(max(parts))))
    if isinstance(phase, int) and phase not in parts:
        what = f"it has {len(parts)} phases, and phase {phase} is asked for. Give a number from 1 to {len(parts)}, or "
        yield {"fault": f"{what}all.", "name": item["name"]}
        return
    for number, part in parts.items():
        if phase in (number, "all"):
            yield {**item, "image": part, "name": f"{item['name']}_phase{number:0{digits}}"}


def _of_series(series: "Series", select: Any) -> Mapping[int, Any]:
    from bundle.pyraseg.dicom import find_phases, read_selection

    phases = find_phases(series, read_selection(select))
    files = {str(file): file for file in series.found}
    return {
        phase.number: [files[name].in_phase(phase.number, frames) for name, frames in phase.by_file().items()]
        for phase in (phases.phases if phases is not None else ())
    }


def _of_nifti(image: str) -> Mapping[int, Any]:
    from bundle.pyraseg.dicom import ChosenPath

    count = volume_count(image) if image.lower().endswith(NIFTI) else 1
    return {number: ChosenPath(image, phase=str(number)) for number in range(1, count + 1)} if count > 1 else {}

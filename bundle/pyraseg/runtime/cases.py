# SPDX-License-Identifier: Apache-2.0
"""Which inputs are the sequences of one case."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.pyraseg.core import PHOTOGRAPH, SequencePaths, image_files

if TYPE_CHECKING:
    from bundle.pyraseg.dicom import Series


def cases_among(
    images: Sequence[dict[str, Any]], series: Sequence["Series"], sequences: Any, *, allow_missing: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Path]]:
    """Return the cases that inputs are the sequences of, those with a fault, and the images that are no sequence.

    Args:
        images: inputs of one image each, with their names.
        series: those of them that are DICOM.
        sequences: what `read_sequences` takes.
        allow_missing: sequences but the first may be missing.
    """
    from bundle.pyraseg.dicom import group_files, group_series, read_sequences

    wanted = read_sequences(sequences)
    of_file = {next(image_files(item["image"])): item for item in images}
    files = [Path(item["image"]) for item in images if isinstance(item["image"], str)]
    there = [one for one in series if str(one.files[0]) in of_file]
    volumes = [file for file in files if not file.name.lower().endswith(PHOTOGRAPH)]
    cases = group_files(volumes, wanted, allow_missing=allow_missing)
    cases += group_series(there, wanted, allow_missing=allow_missing)
    found, incomplete, used = [], [], set()

    def item_of(member: "Series | Path") -> dict[str, Any]:
        first = str(member if isinstance(member, Path) else member.files[0])
        used.add(first)
        return of_file[first]

    for case in cases:
        if case.fault:
            name = min(item_of(member)["name"] for member in case.unused)
            incomplete.append({"fault": f"{case.fault} ({case.place})", "name": name})
            continue
        items = {name: None if part is None else item_of(part) for name, part in case.parts.items()}
        first = next(item for item in items.values() if item is not None)
        parts = {name: None if item is None else item["image"] for name, item in items.items()}
        found.append({**first, "image": SequencePaths(parts)})
    return found, incomplete, [Path(first) for first in of_file if first not in used]

# SPDX-License-Identifier: Apache-2.0
"""What lies in a folder as a table and as plain values: inputs, what can be chosen in them, and what is left out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.pyraseg.dicom import SeriesFacts, series_facts, series_table
from bundle.pyraseg.runtime.find import search_inputs, skipped_lines

#: Images of other formats that the table lists.
MOST_FILES = 20


@dataclass(frozen=True)
class Listing:
    """Hold what lies at a path.

    Attributes:
        path: that was searched.
        root: the same, or the folder of the only file.
        series: name of the results and facts of every DICOM series.
        files: name of the results and path of every other image.
        faults: files and folders that are no image, with what is wrong, by name.
        skipped: files that are left out without complaint, by the reason.
    """

    path: Path
    root: Path
    series: list[tuple[str, SeriesFacts]]
    files: list[tuple[str, str]]
    faults: list[tuple[str, str]]
    skipped: dict[str, list[Path]]

    def lines(self) -> list[str]:
        """Return the listing as lines of text."""
        unread = sum(bool(facts.problem) for _, facts in self.series)
        head = f"{self.path}: {len(self.series)} DICOM series and {len(self.files)} other images"
        lines = [head + f"; {unread} series cannot be read as they are" * bool(unread)]
        if self.series:
            lines += ["", *series_table(self.series)]
        if self.files:
            lines += ["", *(f"{name}: {file}" for name, file in self.files[:MOST_FILES])]
            more = len(self.files) - MOST_FILES
            lines += [f"and {more} more, which --json lists"] if more > 0 else []
        left = [f"{name}: not read, {fault}" for name, fault in self.faults]
        left += skipped_lines(self.skipped, self.root)
        return [*lines, "", *left] if left else lines

    def as_dict(self) -> dict[str, Any]:
        """Return the listing as JSON has it."""
        return {
            "path": str(self.path),
            "series": [{"name": name, **facts.as_dict()} for name, facts in self.series],
            "files": [{"name": name, "file": file} for name, file in self.files],
            "faults": [{"name": name, "fault": fault} for name, fault in self.faults],
            "skipped": {reason: [str(file) for file in files] for reason, files in self.skipped.items()},
        }


def list_inputs(path: str | Path, *, series: Any = None, select: Any = None) -> Listing:
    """Return what `find_inputs` finds at a path, with what `series_facts` tells of its series.

    Raises:
        PyrasegError: as `find_inputs`.
    """
    found = search_inputs(path, series=series, select=select)
    images = [(item["name"], item["image"]) for item in found.items if isinstance(item.get("image"), str)]
    return Listing(
        Path(path),
        found.root,
        [(name, series_facts(one, select)) for name, one in found.series.items()],
        images,
        [(item["name"], item["fault"]) for item in found.items if "fault" in item],
        found.skipped,
    )

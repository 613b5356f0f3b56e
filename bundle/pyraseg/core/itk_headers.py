# SPDX-License-Identifier: Apache-2.0
"""What a header of NRRD or MetaImage says: its fields, where it ends, and which files hold the voxels."""

import re
from pathlib import Path

#: Fields that name the files of the voxels: of MetaImage, and of NRRD.
_VOXELS = ("elementdatafile", "data file", "datafile")
#: Headers end here at the latest; pixels follow.
LONGEST_HEADER = 1 << 20
#: The end of a line: for NRRD a lone carriage return, too.
_LINE = rb"(?:\r\n|\n|\r(?!\n))"
#: The field that ends a header of MetaImage, with the files that it lists.
_LAST_FIELD = rb"(?m)^[ \t]*ElementDataFile[ \t]*[=:](?:[ \t]*LIST\b(?s:.*)|[^\n]*\n?)"
#: Files by their numbers: a name with a place for one, and the first, the last and the step of them.
_NUMBERED = re.compile(r"([^%]*%\d{0,2}[diu][^%]*?)(?:\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(?:\s+\d+)?)?")
#: No volume has more slices, and a header may give any numbers.
_MOST_FILES = 100_000


def read_itk_header(path: str | Path) -> tuple[dict[str, str], int]:
    """Return the fields of a header, and where it ends.

    Names of fields are lower-case; of a NRRD its `key:=value` pairs are fields too, with their keys as they are. Files
    that a field lists line by line are lines of its value.
    """
    with Path(path).open("rb") as file:
        start = file.read(LONGEST_HEADER)
    nrrd = start.startswith(b"NRRD")
    end = re.search(_LINE * 2 if nrrd else _LAST_FIELD, start)
    length = end.end() if end else len(start)
    lines = re.split(r"\r\n|\n|\r", start[:length].decode(errors="replace"))
    fields: dict[str, str] = {}
    for number, line in enumerate(lines):
        if nrrd and ":=" in line:
            key, _, value = line.partition(":=")
            fields[key.strip()] = value.strip().replace("\\n", "\n").replace("\\\\", "\\")
        elif not line.startswith("#"):
            key, value = [*re.split(":" if nrrd else "[=:]", line, maxsplit=1), ""][:2]
            key, value = re.sub(r"\s+", " ", key.strip().lower()), value.strip()
            listed = key in _VOXELS and re.match(r"LIST\b", value)
            fields[key] = "\n".join([value, *lines[number + 1 :]]) if listed else value
            if listed:
                break
    return fields, length


def pixel_files(path: str | Path) -> list[Path]:
    """Return the files in which a header says its voxels are, whether they are there or not; none if they follow it.

    A header names one file, lists several, or gives a pattern of their names with the numbers in them.
    """
    fields, _ = read_itk_header(path)
    named = next((fields[key] for key in _VOXELS if fields.get(key)), "LOCAL")
    if named in ("LOCAL", "Local", "local"):
        return []
    names = [named]
    if re.match(r"LIST\b", named):
        names = named.split("\n")[1:]
    elif numbered := _NUMBERED.fullmatch(named):
        pattern, *numbers = numbered.groups()
        depth = (re.findall(r"\d+", fields.get("dimsize", "")) or ["1"])[-1]
        first, last, step = map(int, numbers if numbers[0] else ("1", depth, "1"))
        names = [pattern % number for number in range(first, last + 1, max(step, 1))[:_MOST_FILES]]
    return [Path(path).parent / name for name in names if name and "\0" not in name]

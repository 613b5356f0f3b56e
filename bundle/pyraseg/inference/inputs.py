# SPDX-License-Identifier: Apache-2.0
"""Find the images in a folder, and load them one by one without letting a broken one stop the others."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from bundle.pyraseg.dicom.scan import Series, scan_files
from bundle.pyraseg.errors import PyrasegError, mendable
from bundle.pyraseg.transforms.reader import ITK, NIFTI, PHOTOGRAPH

logger = logging.getLogger(__name__)

#: What scan_files says of files that it cannot use. Scouts, reports and the like are left out without complaint.
FAULTS = ("not DICOM", "unreadable")


def find_inputs(path: str | Path) -> list[dict[str, Any]]:
    """Return what there is to segment at a path, searched recursively, in the order of the names.

    Every DICOM series, whatever its files are called, is one input; so is every NIfTI, NRRD, MetaImage, PNG, JPEG,
    BMP or TIFF file. Files that are none of these, and folders without any file, are inputs with a `fault`: they were
    given, so they are to be named.

    Returns:
        Items {"image": path or list of paths, "name": where to write below the output folder, without a suffix}, or
        {"fault": what is wrong, "name": ...}.

    Raises:
        PyrasegError: the path does not exist or holds nothing to segment.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise PyrasegError(f"There is nothing at {path}. Give dataset_dir the folder, or the file, to segment.")
    root = path if path.is_dir() else path.parent
    entries = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [entry for entry in entries if entry.is_file()]
    named = [file for file in files if file.name.lower().endswith(NIFTI + ITK + PHOTOGRAPH)]
    found = [{"image": str(file), "name": _stem(file.relative_to(root))} for file in named]
    others = [file for file in files if file not in set(named)]
    if others:
        found += _dicom_inputs(others, root)
    empty = [entry for entry in entries if entry.is_dir() and not any(entry.iterdir())]
    found += [{"fault": "is an empty folder", "name": str(folder.relative_to(root))} for folder in empty]
    if not any("image" in item for item in found):
        raise PyrasegError(
            f"{path} holds no image: {len(files)} files, none of them DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG, BMP or "
            "TIFF. Give dataset_dir another folder."
        )
    return sorted(_distinct(found), key=lambda item: item["name"])


def _dicom_inputs(files: Sequence[Path], root: Path) -> list[dict[str, Any]]:
    scan = scan_files(files, root=root)
    faulty = [(file, reason) for reason in FAULTS for file in scan.skipped_files.get(reason, ())]
    inputs = [
        {"image": [str(file) for file in series.files], "name": _series_name(series, root)} for series in scan.series
    ]
    return inputs + [{"fault": f"is {reason}", "name": str(file.relative_to(root))} for file, reason in faulty]


def _series_name(series: Series, root: Path) -> str:
    """Name a series after its folder, a lone file after itself."""
    first = series.files[0].relative_to(root)
    if len(series.files) == 1:
        return _stem(first)
    return str(first.parent) if first.parent.name else root.name


def _stem(path: Path) -> str:
    suffix = next(
        (s for s in sorted(NIFTI + ITK + PHOTOGRAPH, key=len)[::-1] if path.name.lower().endswith(s)), path.suffix
    )
    return str(path)[: len(str(path)) - len(suffix)] if suffix and path.stem else str(path)


def _distinct(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number the names that several inputs share, so that none overwrites another's output."""
    shared, seen = Counter(item["name"] for item in items), Counter()
    for item in items:
        name = item["name"]
        if shared[name] > 1:
            seen[name] += 1
            item["name"] = f"{name}_{seen[name]}"
    return items


class InputDataset(IterableDataset):
    """Yield the inputs that can be loaded, and remember what is wrong with the others.

    Args:
        data: what `find_inputs` returned.
        transform: preprocessing of an item, {"image": path} -> {"image": tensor, ...}.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable[[dict], dict]) -> None:
        self.data = list(data)
        self.transform = transform
        #: What went wrong, by the name of the input.
        self.failures: dict[str, str] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.failures.clear()
        for item in self.data:
            if "fault" in item:
                self.fail(item["name"], item["fault"])
                continue
            try:
                yield self.transform(dict(item))
            except Exception as error:  # MONAI's transforms wrap what they raise
                cause = mendable(error)
                if cause is None:
                    raise
                self.fail(item["name"], str(cause))

    def fail(self, name: str, reason: str) -> None:
        """Remember and log that an input could not be segmented."""
        self.failures[name] = reason
        logger.warning("%s was not segmented: %s", name, reason)

    def require_all(self) -> None:
        """Raise PyrasegError if any input failed; the message names each."""
        if self.failures:
            listed = "\n  ".join(f"{name}: {reason}" for name, reason in self.failures.items())
            raise PyrasegError(
                f"{len(self.failures)} of {len(self.data)} inputs were not segmented, the others are done:\n  {listed}"
            )
        logger.info("All %d inputs are segmented.", len(self.data))

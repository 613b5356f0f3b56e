# SPDX-License-Identifier: Apache-2.0
"""Find the images in a folder."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import abspath, commonpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.pyraseg.core import (
    ITK,
    NIFTI,
    PHOTOGRAPH,
    PyrasegError,
    SequencePaths,
    image_files,
    pixel_files,
    protect,
    protecting_inputs,
    require_replaceable,
    without_suffix,
)
from bundle.pyraseg.dicom import read_phase, read_wanted, those_meant
from bundle.pyraseg.runtime.cases import cases_among
from bundle.pyraseg.runtime.each_phase import in_phases
from bundle.pyraseg.runtime.names import TABLES, distinct_names

if TYPE_CHECKING:
    from bundle.pyraseg.dicom import Series

logger = logging.getLogger(__name__)

#: What scan_files says of files that it cannot use. Scouts, reports and the like are left out without complaint.
FAULTS = ("not DICOM", "unreadable")
#: Files left out of a kind that a line names; `pyraseg list --json` has all.
MOST_NAMED = 3
#: What the two files are called in which Analyze, and NIfTI where it wants to, keeps header and voxels.
PAIR = (".hdr", ".img")
#: Names of files that often lie beside images and that nobody takes for one. Others that are no DICOM may be damaged.
SIDECARS = (
    *(".txt", ".md", ".rst", ".rtf", ".pdf", ".doc", ".docx", ".odt", ".html", ".htm", ".log", ".url"),
    *(".json", ".jsonl", ".csv", ".tsv", ".xls", ".xlsx", ".ods", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
    *(".bval", ".bvec", ".md5", ".sha1", ".sha256", ".sig", ".asc", ".lnk", ".py", ".sh", ".bat"),
    *("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "readme", "license", "licence", "copying", "notice"),
    *("md5sums", "sha256sums", "checksums"),
)


@dataclass(frozen=True)
class Found:
    """Hold what lies at a path.

    Attributes:
        root: the folder that was searched, or that of the only file.
        items: what there is to segment, and what is none though it was given, see `find_inputs`.
        series: of items that are DICOM, by name.
        skipped: files that are left out, by the reason.
    """

    root: Path
    items: list[dict[str, Any]]
    series: dict[str, "Series"]
    skipped: dict[str, list[Path]]

    def table(self, select: Any = None) -> list[str]:
        """Return the lines of a table of the series, see `series_table`."""
        from bundle.pyraseg.dicom import series_facts, series_table

        return series_table([(name, series_facts(one, select)) for name, one in self.series.items()])

    def left_out(self) -> list[str]:
        """Return the lines that say what is left out, and why."""
        return skipped_lines(self.skipped, self.root)


def find_inputs(
    path: str | Path,
    *,
    leave_out: str | Path | None = None,
    series: Any = None,
    select: Any = None,
    phase: Any = None,
    sequences: Any = None,
    allow_missing: bool = False,
) -> list[dict[str, Any]]:
    """Return what there is to segment at a path, searched recursively, in the order of the names.

    Every DICOM series, whatever its files are called, is one input, and so is every view where a series holds several
    (`x_L_CC` is the left CC view in the file x); so is every NIfTI, NRRD, MetaImage, PNG, JPEG,
    BMP or TIFF file. Files that are none of these, and folders without any file, are inputs with a `fault`: they were
    given, so they are to be named. Hidden files and folders are left out, and so are the pixels that a header of NRRD
    or MetaImage names as a file of its own. Notes, tables and the like beside images (`SIDECARS`) are no inputs, nor
    are DICOM objects that are no image to segment. The log has a table of the series and what is left out, as
    `pyraseg list` shows it. No result of this process replaces one of the inputs from here on.

    Args:
        path: a folder, or one file.
        leave_out: the folder of the results. Below the path it is not searched, lest a second run segments them.
        series: the DICOM series that are inputs, and nothing else is: numbers, descriptions or UIDs, see `is_meant`.
        select: which slices of a series are read, for the table.
        phase: of a series or a NIfTI that holds several, the number of the one that is an input, or "all": each is one,
            and its results are called NAME_phase03. Without it such a series is refused when it is read.
        sequences: what `read_sequences` takes; None: every image is an input. Else a case of several images is one
            input, named as its first sequence: a study of DICOM series, or files `CASE_SEQUENCE.nii.gz`. A case that
            lacks a sequence, or has two for one, has a `fault`; images that are no sequence are left out.
        allow_missing: sequences but the first may be missing.

    Returns:
        Items {"image": path, or the files of a series with their headers, which nothing opens for that again, "name":
        where to write below the output folder, without a suffix, see `distinct_names`}, or {"fault": what is wrong,
        "name": ...}.

    Raises:
        PyrasegError: the path does not exist or holds nothing to segment, or results would lie among the inputs or
            replace one.

    >>> import shutil, tempfile
    >>> from pydicom.data import get_testdata_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = shutil.copy(get_testdata_file("CT_small.dcm"), folder)
    ...     Path(folder, "photo.png").touch()
    ...     Path(folder, "notes.txt").touch()
    ...     [sorted(item) for item in find_inputs(folder)]
    [['image', 'name'], ['image', 'name']]
    """
    found = search_inputs(
        path, leave_out=leave_out, series=series, select=select, phase=phase, sequences=sequences,
        allow_missing=allow_missing,
    )  # fmt: skip
    if found.series:
        logger.info("Series in %s:\n%s", path, "\n".join(found.table(select)))
    for line in found.left_out():
        logger.info("%s", line)
    return found.items


def search_inputs(
    path: str | Path,
    *,
    leave_out: str | Path | None = None,
    series: Any = None,
    select: Any = None,
    phase: Any = None,
    sequences: Any = None,
    allow_missing: bool = False,
) -> Found:
    """Find what there is to segment, see `find_inputs`, and what is left out.

    Raises:
        PyrasegError: see there; or no series is meant.
    """
    path = Path(path).expanduser()
    wanted, which = read_wanted(series), read_phase(phase)
    if not path.exists():
        raise PyrasegError(f"There is nothing at {path}. Give the folder or file to segment.")
    root = path if path.is_dir() else path.parent
    output = None if leave_out is None else Path(leave_out).expanduser()
    if output is not None:
        _require_two(root, output)
    entries = sorted(_visible(path, output)) if path.is_dir() else [path]
    files = [entry for entry in entries if entry.is_file()]
    named = [file for file in files if file.name.lower().endswith(NIFTI + ITK + PHOTOGRAPH)]
    found: list[dict[str, Any]] = [
        {"image": str(file), "name": without_suffix(file.relative_to(root).as_posix())} for file in named
    ]
    detached = {abspath(file) for file in _detached_pixels(named)}
    unnamed = sorted(file for file in set(files).difference(named) if abspath(file) not in detached)
    stacks, unused = _scanned(unnamed, root, select)
    chosen = those_meant(stacks, wanted, root)
    faulty = [(file, reason) for reason in FAULTS for file in unused.get(reason, ())]
    sidecars = [file for file, reason in faulty if reason == "not DICOM" and _is_sidecar(file)]
    if wanted:
        others = len(stacks) + len(found) - len(chosen)
        logger.warning("--series means %d of the inputs in %s; %d others are left out", len(chosen), path, others)
        faulty, entries = [], []
    series_names = _series_names(stacks, root)
    found += [{"image": one.found, "name": name} for one, name in zip(stacks, series_names, strict=True)]
    images = sorted(found, key=_first_file)
    meant = {one.files[0].as_posix() for one in chosen} if wanted else set(map(_first_file, images))
    images = _named_apart(images, meant)  # all are named, so that each has the same name whatever is chosen
    incomplete, no_sequence = [], []
    if sequences is not None:
        images, incomplete, no_sequence = cases_among(images, chosen, sequences, allow_missing=allow_missing)
    faults = [
        {"fault": _fault(file, reason), "name": file.relative_to(root).as_posix()}
        for file, reason in faulty
        if file not in sidecars
    ]
    empty = [entry for entry in entries if entry.is_dir() and not any(entry.iterdir())]
    faults += [{"fault": "is an empty folder", "name": folder.relative_to(root).as_posix()} for folder in empty]
    faults += incomplete
    if no_sequence and not images and not incomplete:
        raise PyrasegError(
            f"{path} has {len(no_sequence)} images, such as {no_sequence[0]}, and none is a sequence of the model. "
            "Correct sequences: what they are called here."
        )
    if not images and not incomplete:
        known = "Images are DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG, BMP, TIFF and WebP"
        if path.is_file():
            raise PyrasegError(f"{path} is no image (found: {', '.join(unused)}). {known}. Give another file.")
        reasons = ", ".join(f"{len(names)} {reason}" for reason, names in unused.items()) or "nothing"
        raise PyrasegError(f"{path} holds no image. Found instead: {reasons}. {known}. Give another folder.")
    protect([*named, *detached, *(file for one in stacks for file in one.files)])
    if output is not None:
        with protecting_inputs():  # whether a run is open or not
            protect(detached)
            require_apart(images, path, output, left_out=output)
    names = {item["name"] for item in images}
    for item in faults:  # the books of a run are kept by name
        item["name"] += " (no image)" if item["name"] in names else ""
    by_first = {one.files[0].as_posix(): one for one in chosen}
    members = [(item["name"], by_first.get(_first_file(item))) for item in images if not _is_file(item["image"])]
    if which and sequences is not None:
        raise PyrasegError("A model of several sequences takes no phase. Leave out --phase.")
    if which:
        by_name = {name: one for name, one in members}
        images = [
            part for item in images for part in in_phases(item, which, series=by_name.get(item["name"]), select=select)
        ]
        own = [item["name"] for item in images]
        images = [{**item, "name": name} for item, name in zip(images, distinct_names(own), strict=True)]
    skipped = {reason: list(files) for reason, files in unused.items() if reason not in FAULTS}
    if sidecars:
        skipped["beside the images"] = sidecars
    if no_sequence:
        skipped["no sequence of the model"] = no_sequence
    return Found(
        root,
        sorted(images + faults, key=lambda item: item["name"]),
        {name: one for name, one in sorted(members) if one is not None},
        skipped,
    )


def _scanned(files: Sequence[Path], root: Path, select: Any) -> tuple[Sequence["Series"], Mapping[str, Sequence[Path]]]:
    """Return the DICOM series among files, and what is none by the reason; without a file, pydicom is not loaded."""
    if not files:
        return (), {}
    from bundle.pyraseg.dicom import read_selection, scan_files

    scan = scan_files(files, root=root, keywords=read_selection(select))
    return scan.series, scan.skipped_files


def skipped_lines(skipped: Mapping[str, Sequence[Path]], root: Path) -> list[str]:
    """Return a line for each reason to leave files out, with the names of some below a folder."""
    lines = []
    for reason, files in skipped.items():
        more = f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
        named = ", ".join(file.relative_to(root).as_posix() for file in files[:MOST_NAMED])
        lines.append(f"left out: {len(files)} {reason} ({named}{more})")
    return lines


def require_apart(items: Iterable[dict[str, Any]], path: str | Path, output: str | Path, *, left_out: Path) -> None:
    """Refuse a folder of results whose results would lie among the inputs, or replace one; tell what they replace.

    Args:
        items: what `find_inputs` returned, or some of it.
        path: where that was found.
        output: the folder that results of these items are written to.
        left_out: the folder in which no inputs were searched.

    Raises:
        PyrasegError: results would lie among the inputs, so that another run segments them, or replace one.
    """
    path, output = Path(path).expanduser(), Path(output)
    root = path if path.is_dir() else path.parent
    _require_two(root, output)
    items = [item for item in items if "image" in item]
    results = [output / f"{item['name']}{suffix}" for item in items for suffix in (".png", NIFTI[1])]
    with protecting_inputs():
        protect(file for item in items for file in _files_of(item))
        for result in results:
            require_replaceable(result)
    searched = path.is_dir() and root.resolve()
    for folder in dict.fromkeys([output, *(result.parent for result in results)]):
        lies = [folder.resolve(), *folder.resolve().parents]
        if searched and searched in lies and left_out.resolve() not in lies[: lies.index(searched)]:
            raise PyrasegError(
                f"Results would lie in {folder}, among the inputs of {root}, and another run would read them as "
                "inputs. Give another folder of results."
            )
    tables = [output / table for table in TABLES]
    if earlier := [result for result in [*results, *tables] if result.exists()]:
        logger.warning(
            "%s holds results of an earlier run, such as %s. What has the same name as a new result is replaced",
            output, earlier[0].relative_to(output),
        )  # fmt: skip


def _require_two(root: Path, output: Path) -> None:
    if _is_same(output, root):
        raise PyrasegError(
            f"{root} is the folder of inputs and of results, so results would be read as inputs, or replace them. "
            "Give two folders."
        )


def _files_of(item: dict[str, Any]) -> list[Path]:
    """Return the files of an input."""
    return [Path(file) for file in image_files(item["image"])]


def _is_file(image: Any) -> bool:
    """Return whether an input is, or begins with, a file of another format than DICOM."""
    first = next(iter(image.parts.values())) if isinstance(image, SequencePaths) else image
    return isinstance(first, str)


def _first_file(item: dict[str, Any]) -> str:
    return _files_of(item)[0].as_posix()


def _named_apart(images: list[dict[str, Any]], meant: Collection[str]) -> list[dict[str, Any]]:
    """Give every input a name of its own; return those whose first file is meant, and log names that are not theirs."""
    own = [item["name"] for item in images]
    kept = []
    for item, name in zip(images, distinct_names(own), strict=True):
        if _first_file(item) not in meant:
            continue
        kept.append({**item, "name": name})
        if name != item["name"]:
            logger.warning(
                "Results of %s are called %s, since %s would stand for more than one input",
                _first_file(item),
                name,
                item["name"],
            )
    return kept


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two paths are the same file or folder, however they are spelled."""
    return one.exists() and one.samefile(other)


def _visible(folder: Path, output: Path | None) -> Iterator[Path]:
    """Yield what lies below a folder, but for what is hidden and the folder of the results."""
    for entry in folder.iterdir():
        if entry.name.startswith(".") or (output is not None and entry.is_dir() and _is_same(output, entry)):
            continue
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from _visible(entry, output)


def _detached_pixels(files: Iterable[Path]) -> Iterator[Path]:
    """Yield the files of voxels that the headers of NRRD and MetaImage among some files name."""
    for file in files:
        if file.name.lower().endswith(ITK):
            try:
                yield from pixel_files(file)
            except OSError:  # whoever reads it says so
                continue


def _fault(file: Path, reason: str) -> str:
    """Return what is wrong with a file that is no image."""
    if reason == "not DICOM" and file.suffix.lower() in PAIR:
        return "is not DICOM, but half of a pair (Analyze, or NIfTI in two files). Convert it to NIfTI in one file."
    return f"is {reason}"


def _is_sidecar(file: Path) -> bool:
    """Return whether a file that is no image is called as one that only accompanies images."""
    return file.name.lower().endswith(SIDECARS)


def _series_names(series: Sequence["Series"], root: Path) -> list[str]:
    """Name series after their folders or files, and those that share one by their numbers and descriptions, too."""
    names = [_series_name(one, root) for one in series]
    shared = Counter(names)
    return [
        f"{name}_{one.called}" if shared[name] > 1 and one.called else name
        for name, one in zip(names, series, strict=True)
    ]


def _series_name(series: "Series", root: Path) -> str:
    """Name a series after its folder, a lone file after itself, and one of several views after what it is, too."""
    first = series.files[0].relative_to(root)
    if len(series.files) == 1 or series.view_of:
        return "_".join(filter(None, [without_suffix(first.as_posix()), series.view]))
    folder = Path(commonpath(file.relative_to(root).parent for file in series.files))  # a medium may spread it
    if folder.name:
        return folder.as_posix()
    return root.name if root.name not in ("", "..") else root.resolve().name or "series"  # "." has none to give

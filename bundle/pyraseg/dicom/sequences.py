# SPDX-License-Identifier: Apache-2.0
"""Which series of a study, or which files of a folder, are the sequences of a case: T1, FLAIR, and so on."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonpath
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import ITK, NIFTI, PyrasegError, without_suffix
from bundle.pyraseg.dicom.scan import Series, find_series
from bundle.pyraseg.dicom.wanted import is_meant, read_wanted

#: A sequence that was found: a DICOM series, or the file of a volume.
Member = Series | Path


@dataclass(frozen=True)
class SequenceCase:
    """Hold one case whose sequences were looked for.

    Attributes:
        place: the folder of the study, or the folder and the name of the case.
        parts: what each sequence is, by name, in the order of the sequences; None where it may be missing and is.
        fault: why the case cannot be used, in words that follow its name; "" where it can.
        unused: what belongs to the case and is none of its sequences.
    """

    place: str
    parts: dict[str, Member | None] = field(default_factory=dict)
    fault: str = ""
    unused: tuple[Member, ...] = ()


def read_sequences(sequences: Any) -> dict[str, list[str]]:
    """Return the sequences of a model: for each name the texts that its series or its file may be called by.

    Args:
        sequences: a mapping from names to such texts, where * and ? stand for any letters and a semicolon parts
            several; or a list of such mappings, whose order nothing changes, or of names, which are then what the
            sequences are called. None: the model takes one image.

    Raises:
        PyrasegError: it is neither, or there is none, or a name is no word.

    >>> read_sequences({"t1": "*T1*MPR*", "flair": "*FLAIR*; 0001"})
    {'t1': ['*T1*MPR*', 't1'], 'flair': ['*FLAIR*', '0001', 'flair']}
    >>> read_sequences([{"t1": "*T1*MPR*"}, "flair"])
    {'t1': ['*T1*MPR*', 't1'], 'flair': ['flair']}
    """
    if sequences is None:
        return {}
    given = sequences
    if isinstance(sequences, list | tuple):
        pairs = [pair for one in sequences for pair in (one.items() if isinstance(one, Mapping) else [(one, "")])]
        sequences = dict(pairs) if len({str(name) for name, _ in pairs}) == len(pairs) else None
    if not isinstance(sequences, Mapping) or not sequences:
        raise PyrasegError(
            f"sequences is {given!r}. Name each with what it is called, the one that results refer to first, such "
            'as {"t1": "T1*", "flair": "*FLAIR*"}, and none twice.'
        )
    odd = [name for name in sequences if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]*", name)]
    if odd:
        raise PyrasegError(f"The name of a sequence is a word, such as flair, not {odd[0]!r}.")
    return {name: [*read_wanted(called), name] for name, called in sequences.items()}


def group_series(
    series: Iterable[Series], sequences: Mapping[str, Sequence[str]], *, allow_missing: bool = False
) -> list[SequenceCase]:
    """Return a case for each study among DICOM series.

    A sequence is found by its description, its number or its UID, see `is_meant`.

    Args:
        series: of any number of studies; those without a Study Instance UID are of one study where they share a folder.
        sequences: what `read_sequences` returns.
        allow_missing: sequences but the first may be missing.
    """
    studies: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for one in series:
        studies[one.patient, one.study_uid or str(one.files[0].parent)].append(one)
    return [_case(_folder(own), own, sequences, allow_missing) for own in studies.values()]


def group_files(
    files: Iterable[Path], sequences: Mapping[str, Sequence[str]], *, allow_missing: bool = False
) -> list[SequenceCase]:
    """Return a case for each name that files `CASE_SEQUENCE.nii.gz` have in common in a folder.

    What stands behind the last `_` or `-` tells the sequence; a file whose whole name does, as in `CASE/flair.nii.gz`,
    belongs to the case of its folder. Names without any sequence are no cases.

    Args: as for `group_series`.
    """
    cases: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        cases[_case_of(file, sequences)].append(file)
    found = (_case(str(place), own, sequences, allow_missing) for place, own in cases.items())
    return [case for case in found if case.parts or not case.fault.startswith(_NONE)]


def find_sequences(path: Path, sequences: Mapping[str, Sequence[str]], *, allow_missing: bool = False) -> SequenceCase:
    """Return the only case in a folder, which holds the files of one case, or one study.

    Raises:
        PyrasegError: there is no image, or more than one case.
    """
    volumes = sorted(file for file in path.rglob("*") if file.name.lower().endswith(NIFTI + ITK))
    cases = group_files(volumes, sequences, allow_missing=allow_missing)
    if not cases:
        cases = group_series(find_series(path).series, sequences, allow_missing=allow_missing)
    if len(cases) > 1:
        named = ", ".join(case.place for case in cases[:4])
        raise PyrasegError(
            f"The folder {path} holds {len(cases)} cases ({named}), and is to hold one. Give each a folder of its own."
        )
    return cases[0]


def match_sequences(
    members: Mapping[str, Sequence[str]], sequences: Mapping[str, Sequence[str]], *, what: str, allow_missing: bool
) -> tuple[dict[str, str | None], str]:
    """Return which member each sequence is, by its name, or why that cannot be told.

    Args:
        members: by a name for messages, the texts that each is called by.
        sequences: what `read_sequences` returns.
        what: the members are, in the plural.
        allow_missing: sequences but the first may be missing.
    """
    meant = {
        name: [one for one, called in members.items() if any(_is_called(text, wanted) for text in called)]
        for name, wanted in sequences.items()
    }
    return _told(meant, list(members), sequences, what, allow_missing)


#: How the fault begins of a case without any sequence.
_NONE = "has none of the sequences"


def _case(
    place: str, members: Sequence[Member], sequences: Mapping[str, Sequence[str]], allow_missing: bool
) -> SequenceCase:
    shown = {str(one): one for one in members}
    meant = {
        name: [text for text, one in shown.items() if _is_member(one, wanted)] for name, wanted in sequences.items()
    }
    what = "series" if isinstance(members[0], Series) else "files"
    chosen, fault = _told(meant, list(shown), sequences, what, allow_missing)
    if fault:
        return SequenceCase(place, fault=fault, unused=tuple(members))
    parts = {name: None if text is None else shown[text] for name, text in chosen.items()}
    return SequenceCase(place, parts, unused=tuple(one for one in members if one not in parts.values()))


def _told(
    meant: Mapping[str, Sequence[str]],
    members: Sequence[str],
    sequences: Mapping[str, Sequence[str]],
    what: str,
    allow_missing: bool,
) -> tuple[dict[str, str | None], str]:
    """Return the only member that each sequence means, or None where it may be missing, or what is wrong."""
    if not any(meant.values()):
        listed = ", ".join(f"{name} ({_called(texts)})" for name, texts in sequences.items())
        return {}, f"{_NONE} {listed}. Its {what}: {'; '.join(members)}. Correct sequences."
    for name, found in meant.items():
        if len(found) > 1:
            return {}, (
                f"has {len(found)} {what} for the sequence {name} ({_called(sequences[name])}): {'; '.join(found)}. "
                "Make its pattern in sequences narrower, or take the others away."
            )
    claimed = [text for found in meant.values() for text in found]
    if twice := [text for text in claimed if claimed.count(text) > 1]:
        names = [name for name, found in meant.items() if twice[0] in found]
        return {}, f"has one of the {what} for both {' and '.join(names)}: {twice[0]}. Make their patterns narrower."
    first = next(iter(meant))
    lacking = [name for name, found in meant.items() if not found]
    if lacking and (not allow_missing or first in lacking):
        listed = ", ".join(f"{name} ({_called(sequences[name])})" for name in lacking)
        why = f" Results refer to {first}, so it cannot be left out." if allow_missing else ""
        return {}, f"lacks the sequence {listed}. Its {what}: {'; '.join(members)}.{why} Add it, or correct sequences."
    return {name: found[0] if found else None for name, found in meant.items()}, ""


def _called(texts: Sequence[str]) -> str:
    """Return what a sequence may be called, as it was typed."""
    return "; ".join(texts[:-1] or texts)


def _is_member(one: Member, wanted: Sequence[str]) -> bool:
    return one.is_meant(wanted) if isinstance(one, Series) else _is_called(_ending(one), wanted)


def _is_called(text: str, wanted: Sequence[str]) -> bool:
    return is_meant(wanted, uids=(), number="", description=text)


def _ending(file: Path) -> str:
    return re.split("[_-]", without_suffix(file.name))[-1]


def _case_of(file: Path, sequences: Mapping[str, Sequence[str]]) -> Path:
    """Return the folder and the name of the case that a file belongs to."""
    name = without_suffix(file.name)
    if name == _ending(file) and any(_is_called(name, wanted) for wanted in sequences.values()):
        return file.parent
    return file.with_name(name[: -len(_ending(file)) - 1] or name)


def _folder(series: Sequence[Series]) -> str:
    return commonpath([file.parent for one in series for file in one.files])

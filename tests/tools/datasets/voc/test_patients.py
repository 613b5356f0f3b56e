# SPDX-License-Identifier: Apache-2.0
"""Which series belong to one patient, and when nobody can tell."""

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.datasets.voc.patients import Identity, group_patients


def identity(patient_id: str, study: str, frame: str = "", stated: str | None = None) -> Identity:
    return Identity(f"series of {study}", patient_id, study, frame, stated)


def groups(identities: list[Identity], by: str = "auto") -> list[int]:
    """Return the groups as numbers in the order of their first series."""
    names = group_patients(identities, by)
    return [list(dict.fromkeys(names)).index(name) for name in names]


def test_series_are_joined_by_any_of_the_three():
    assert groups([identity("A", "1"), identity("B", "2"), identity("A", "3")]) == [0, 1, 0]
    assert groups([identity("A", "1"), identity("B", "1"), identity("C", "2")]) == [0, 0, 1]
    assert groups([identity("A", "1", "f"), identity("B", "2", "f"), identity("C", "3")]) == [0, 0, 1]
    # A Patient ID links the first to the second, a study the second to the third.
    assert groups([identity("A", "1"), identity("A ", "2"), identity("", "2"), identity("B", "3")]) == [0, 0, 0, 1]


def test_one_series_needs_no_patient():
    assert groups([identity("", "")]) == [0]


def test_empty_ids_are_refused_unless_studies_are_patients():
    identities = [identity("A", "1"), identity("  ", "2"), identity("", "3")]
    with pytest.raises(PyrasegError, match="2 of 3 series have no Patient ID, such as series of 2"):
        groups(identities)
    assert groups(identities, "study") == [0, 1, 2]


def test_one_id_in_several_studies_is_refused_unless_it_is_believed():
    identities = [identity("ANON", "1"), identity("ANON", "1"), identity("ANON", "2")]
    with pytest.raises(PyrasegError, match="All 3 series have the same Patient ID, in 2 studies"):
        groups(identities)
    assert groups(identities, "patient") == [0, 0, 0]
    assert groups(identities, "study") == [0, 0, 1]
    assert groups(identities[:2]) == [0, 0]  # one study is one patient


def test_what_the_user_states_comes_first():
    identities = [identity("ANON", "1", stated="x"), identity("ANON", "1", stated="y"), identity("", "2", stated="x")]
    assert groups(identities) == [0, 1, 0]


def test_an_unknown_grouping_is_refused():
    with pytest.raises(PyrasegError, match="one of auto, patient, study, not by 'name'"):
        groups([identity("A", "1")], "name")

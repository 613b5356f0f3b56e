# SPDX-License-Identifier: Apache-2.0
"""What two parts of a split may not share, and what the message says."""

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.duplicates import Duplicate
from bundle.pyraseg.datalists.splitting import NAMED, refuse_duplicates, refuse_shared_patients


def items(*names: str, patient: str | None = None) -> list[dict[str, str]]:
    return [{"image": f"/data/images/{n}.png", "label": "", "patient": patient or n} for n in names]


def test_duplicates_within_a_part_are_no_leak(tmp_path):
    cases = {"training": items("a", "b"), "validation": [], "test": items("c", "d")}
    pairs = [Duplicate(0, 1, 1.0, True), Duplicate(2, 3, 0.9, False)]
    refuse_duplicates(cases, pairs, tmp_path, remedy="")


def test_the_message_names_the_pairs_and_what_to_do(tmp_path):
    cases = {"training": items("a", "b"), "validation": items("c"), "test": items("d")}
    pairs = [Duplicate(1, 2, 1.0, True), Duplicate(2, 3, 0.876, False)]
    with pytest.raises(PyrasegError) as refusal:
        refuse_duplicates(cases, pairs, "/data", remedy="Do this.")
    lines = str(refusal.value).splitlines()
    assert lines[0].startswith("2 pairs of images in /data")
    assert lines[1:3] == [
        "  images/b.png (training) and images/c.png (validation): the same pixels",
        "  images/c.png (validation) and images/d.png (test): nearly the same (correlation 0.88)",
    ]
    assert lines[-1].endswith("Do this.")


def test_many_pairs_are_counted(tmp_path):
    cases = {"training": items(*(f"a{n}" for n in range(30))), "test": items(*(f"b{n}" for n in range(30)))}
    pairs = [Duplicate(n, 30 + n, 1.0, True) for n in range(30)]
    with pytest.raises(PyrasegError, match=f"30 pairs .*(\n.*)+and {30 - NAMED} more"):
        refuse_duplicates(cases, pairs, tmp_path, remedy="")


def test_patients_are_counted_and_not_named(tmp_path):
    cases = {"fold_0": items("a"), "fold_1": items("b", patient="Secret"), "fold_2": items("c", "d", patient="Secret")}
    with pytest.raises(PyrasegError, match=r"1 patients .* are in fold_1 and in fold_2") as refusal:
        refuse_shared_patients(cases, tmp_path)
    assert "Secret" not in str(refusal.value)

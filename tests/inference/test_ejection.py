# SPDX-License-Identifier: Apache-2.0
"""What a heart beat ejects, from volumes that are known."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.inference.writers.ejection import heart_beat
from bundle.pyraseg.inference.writers.volumes import VolumeTable

NAMES = ["background", "muscle", "cavity"]


def found(case, phase, milliliters, *, slices=3, series="1.2"):
    """Return what was found in a phase: so much cavity, and muscle that is not asked for."""
    volumes = None if milliliters is None else np.array([0, 90_000, 1000 * milliliters])
    origin = {"series_uid": series, "phase": phase} if phase else {"series_uid": series}
    return SimpleNamespace(name=case, voxels=np.ones((slices, 3), int), volumes=volumes, origin=origin, unlike=None)


def table_of(folder, *inputs):
    """Write the tables of inputs, and return the rows about what the beat ejects."""
    table = VolumeTable(output_dir=folder, class_names=NAMES, ejection_fraction="cavity")
    table.start()
    try:
        written = [path.name for one in inputs for path in table(one)]
    finally:
        table.finish()
    path = folder / "ejection_fraction.csv"
    assert path.exists() == (path.name in written)
    return list(csv.DictReader(path.open(newline=""))) if path.exists() else []


def test_the_largest_and_the_smallest_volume_count(tmp_path):
    volumes = {1: 118.25, 2: 90.0, 3: 47.3, 4: 60.0, 5: 118.0}
    (row,) = table_of(tmp_path, *(found(f"a_phase{n:02d}", n, volume) for n, volume in volumes.items()))
    assert row == {
        "case": "a", "class": "cavity", "phases": "5", "end_diastolic_phase": "1", "end_systolic_phase": "3",
        "end_diastolic_volume_ml": "118.2500", "end_systolic_volume_ml": "47.3000", "stroke_volume_ml": "70.9500",
        "ejection_fraction": "0.6000", "left_out": "", "series_uid": "1.2",
    }  # fmt: skip


def test_series_are_told_apart_and_incomplete_phases_left_out(tmp_path):
    rows = table_of(
        tmp_path,
        found("a_phase01", 1, 100), found("b_phase02", 2, 30, series="1.3"), found("a_phase02", 2, 75),
        found("a_phase03", 3, 10, slices=2), found("b_phase01", 1, 60, series="1.3"), found("a_phase04", 4, None),
    )  # fmt: skip
    told = [(row["case"], row["ejection_fraction"], row["left_out"], row["phases"]) for row in rows]
    assert told == [("a", "0.2500", "3 4", "2"), ("b", "0.5000", "", "2")]


def test_nothing_found_has_no_fraction(tmp_path):
    (row,) = table_of(tmp_path, found("a_phase1", 1, 0.0), found("a_phase2", 2, 0.0))
    assert (row["ejection_fraction"], row["end_diastolic_volume_ml"]) == ("", "0.0000")


def test_one_phase_or_none_has_no_row(tmp_path, caplog):
    table_of(tmp_path, found("a_phase1", 1, 10), found("a_phase2", 2, 5))
    assert table_of(tmp_path, found("a_phase1", 1, 10), found("b", 0, 20)) == []  # nor is the earlier table left
    assert "b is no phase of a heart beat" in caplog.text
    with pytest.raises(PyrasegError, match="two phases or more"):
        heart_beat({1: 10.0})


def test_a_class_that_is_not_there(tmp_path):
    with pytest.raises(PyrasegError, match=r"none of the classes muscle, cavity.* 'cavity'"):
        VolumeTable(output_dir=tmp_path, class_names=NAMES, ejection_fraction="cavty")

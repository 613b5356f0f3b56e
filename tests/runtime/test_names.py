# SPDX-License-Identifier: Apache-2.0
"""No result of one input can come to the place of another one's, whatever the inputs are called."""

import itertools

import numpy as np
import pytest

from bundle.pyraseg.runtime.names import distinct_names

#: What stands behind an input's name in the files and folders that the writers and the runtime make.
PICTURES = (".png", ".nii.gz", "_overlay.png", "_probability_1.png", "_probability_12.nii.gz")
ENDINGS = (*PICTURES, "_seg.dcm", "_rtstruct.dcm", "_capture.dcm", "_series", "_labels")


def results(name: str) -> set[str]:
    return {f"{name}{ending}".casefold() for ending in ENDINGS}


def require_apart(names: list[str]) -> None:
    """Check that no result of one name is a result, or a folder of a result, of another."""
    for one, other in itertools.combinations(names, 2):
        assert not results(one) & results(other), (one, other)
        for first, second in ((one, other), (other, one)):
            assert not any(path.startswith(f"{folder}/") for path in results(second) for folder in results(first))


@pytest.mark.parametrize(
    "names",
    [
        ["x", "x", "x_1"],
        ["x", "x", "x_1", "x_2", "x_1_1", "x_3"],
        ["a", "a_overlay"],
        ["a", "a_overlay", "a_overlay_overlay", "A_Overlay"],
        ["a", "a", "a_1_overlay", "a_overlay"],
        ["A", "a", "b/A", "B/a"],
        ["caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"],
        ["a", "a_probability_1", "a_probability", "a_probability"],
        ["scan", "scan_series/x", "scan_series_x", "scan_labels/x", "scan.png/x", "scan.nii.gz/deep/x"],
        ["scan", "scan", "scan_1_series/x"],
        ["volumes.csv/x", "review.csv/x", "volumes", "volumes.csv_x"],
        ["1.2.840.113619.9", "1.2.840.113619.10", "1.2.840.113619"],
    ],
)
def test_results_never_collide(names):
    found = distinct_names(names)
    assert len(found) == len(names)
    require_apart(found)
    assert not any(name.startswith(("volumes.csv/", "review.csv/")) for name in found)


def test_an_input_keeps_its_name_where_it_can():
    names = ["patient_1", "patient_1_2", "patient_10", "1.2.3.9", "1.2.3", "a/overlay", "a", "x_seg", "x", "x_liver"]
    assert distinct_names(names) == names
    assert distinct_names(["x", "x", "x_1"]) == ["x_2", "x_3", "x_1"]


def test_random_sets_of_awkward_names():
    parts = ["a", "A", "_overlay", "_1", "_probability", "_series", "/", ".png", "b"]
    random = np.random.default_rng(0)
    for _ in range(200):
        raw = ["".join(random.choice(parts, 4)).strip("/").replace("//", "/") for _ in range(12)]
        names = [name for name in raw if name]
        found = distinct_names(names)
        require_apart(found)
        assert distinct_names(names) == found

# SPDX-License-Identifier: Apache-2.0
"""Label values of regions against Python's sets."""

import itertools

import numpy as np
import pytest
import torch

from bundle.pyraseg.core import PyrasegError, Structures, region_values, values_of

CLASSES = ["background", "edema", "core", "enhancing"]
REGIONS = {
    "whole tumor": ["edema", "core", "enhancing"],
    "tumor core": ["core", "enhancing"],
    "enhancing tumor": ["enhancing"],
}


@pytest.mark.parametrize("regions", [REGIONS, {"a": ["core", "edema"], "b": ["edema", "enhancing"]}])
def test_a_value_is_the_set_of_regions_that_hold_the_class(regions):
    structures = Structures(CLASSES, regions)
    label = np.arange(4, dtype=np.uint8).repeat(3)
    values = structures.table[label]
    assert structures.names == ["background", *regions] and structures.channels == len(regions)
    for number, members in enumerate(regions.values(), 1):
        truth = np.array([CLASSES[index] in members for index in label])
        assert np.array_equal(structures.mask(values, number), truth)
        assert np.array_equal(structures.mask(torch.from_numpy(values), number).numpy(), truth)
        assert np.array_equal(np.isin(values, values_of(number, len(regions), overlapping=True)), truth)
        assert structures.channel(number) == number - 1


def test_classes_are_as_they_were():
    structures = Structures(CLASSES)
    label = np.arange(4, dtype=np.uint8)
    for table in (structures.table, structures.uppermost, structures.classes):
        assert np.array_equal(table[label], label)
    assert (structures.names, structures.channels, structures.channel(2)) == (CLASSES, 4, 2)
    assert np.array_equal(structures.mask(label, 2), label == 2)
    annotated = np.array([[True, False, True, True]])
    assert structures.annotated(annotated) is annotated and structures.outside(np.ones(256)) == {}


def test_what_is_unknown_stays_unknown():
    assert Structures(CLASSES, REGIONS).table[255] == 255 and max(Structures(CLASSES, REGIONS).table[:4]) == 7


def test_every_set_of_probabilities_has_a_value_of_its_own():
    sets = list(itertools.product([0.2, 0.8], repeat=7))
    probabilities = np.array(sets, np.float32).T
    values = region_values(probabilities, np.zeros(len(sets), np.uint8))
    assert sorted(values) == list(range(128))
    assert np.array_equal(region_values(torch.from_numpy(probabilities), torch.zeros(128, dtype=torch.uint8)), values)
    structures = Structures(CLASSES, {f"r{place}": ["core"] for place in range(7)})
    for place in range(7):
        assert np.array_equal(structures.mask(values, place + 1), probabilities[place] > 0.5)


def test_a_label_map_of_nested_regions_is_that_of_the_classes():
    """The order in which nnU-Net paints regions gives the same where a region lies inside the one before."""
    structures = Structures(CLASSES, REGIONS)
    label = np.array([0, 1, 2, 3, 255], np.uint8)
    assert structures.classes[structures.table[label]].tolist() == label.tolist()
    for value in range(8):
        painted = 0
        for number, members in enumerate(REGIONS, 1):
            painted = CLASSES.index(CLASSES[number]) if structures.mask(np.array(value), number) else painted
            assert members in structures.names
        assert structures.classes[value] == painted
        assert structures.uppermost[value] == max([n for n in (1, 2, 3) if value >> (n - 1) & 1], default=0)


def test_regions_that_no_class_tells_apart_are_shown_as_the_last_one():
    structures = Structures(["background", "liver", "lesion"], {"organ": ["liver", "lesion"], "lesion": ["lesion"]})
    assert structures.classes[:4].tolist() == [0, 1, 2, 2]  # a lesion outside the organ is a lesion


def test_a_region_is_known_where_all_its_classes_are():
    of_classes = np.array([[True, True, True, True], [True, False, True, True], [True, True, False, False]])
    expected = [[True] * 4, [True, False, True, True], [True, False, False, False]]
    assert Structures(CLASSES, REGIONS).annotated(of_classes).tolist() == expected


def test_by_how_much_a_region_leaves_the_one_that_holds_it():
    counts = np.zeros(256, int)
    counts[[0, 1, 3, 7, 4]] = 50, 40, 20, 9, 1  # one voxel enhances outside of everything
    found = Structures(CLASSES, REGIONS).outside(counts)
    pairs = {("enhancing tumor", "whole tumor"), ("enhancing tumor", "tumor core")}
    assert set(found) == pairs and set(found.values()) == {0.1}


@pytest.mark.parametrize(
    ("regions", "text"),
    [
        ({"whole": ["edema", "tumour"]}, "'tumour', which is no class"),
        ({"whole": ["background"]}, "'background', which is no class"),
        ({"whole": []}, "List its classes"),
        ({"whole": "edema"}, "List its classes"),
        ({"whole": ["edema", "edema"]}, "each once"),
        ({"Background": ["edema"]}, "names that differ"),
        ({"whole": ["edema"], "Whole ": ["core"]}, "names that differ"),
        ({}, "Give the classes of each region"),
        (["edema"], "Give the classes of each region"),
        ({f"r{place}": ["core"] for place in range(8)}, "room for 7"),
    ],
)
def test_what_is_no_region_is_refused(regions, text):
    with pytest.raises(PyrasegError, match=text):
        Structures(CLASSES, regions)

# SPDX-License-Identifier: Apache-2.0
"""Names, codes, patterns and values find their class, and what is unclear is refused."""

import pickle

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.labels.class_table import Canvas, ClassTable, Region, read_codes
from tests.helpers.dicom_files import item

CLASSES = ["background", "Liver", "lesion", "kidney", "right kidney"]
NAMES = {
    "Liver": ["Leber", ["SCT", "10200004"], 5],
    "lesion": ["GTV*", {"type": ["SCT", "52988006"], "region": ["SCT", "10200004"]}, 6, 7],
    "kidney": [["SCT", "64033007"], "kidney_left"],
    "right kidney": [{"type": ["SCT", "64033007"], "modifier": ["SCT", "24028007"]}],
    "background": ["BODY", "*couch*", 1],
}


def code(value: str, scheme: str = "SCT") -> tuple[Code, ...]:
    return (Code(value, scheme, "meaning"),)


@pytest.mark.parametrize(
    ("region", "index"),
    [
        (Region("liver"), 1),
        (Region(" LEBER "), 1),
        (Region("Segment_1", code("10200004")), 1),
        (Region("Segment_1", code("T-62000", "SRT")), 1),
        (Region("gtv_1"), 2),
        (Region("x", code("52988006"), (), code("10200004")), 2),
        (Region("x", code("M-01000", "SRT"), (), code("T-62000", "SRT")), None),  # another legacy code than lesion's
        (Region("x", code("52988006"), (), code("39607008")), None),  # of the lung
        (Region("x", code("64033007")), 3),
        (Region("x", code("64033007"), code("7771000")), 3),  # left
        (Region("x", code("64033007"), code("24028007")), 4),  # the most specific wins
        (Region("x", code("T-71000", "SRT"), code("G-A100", "SRT")), 4),
        (Region("kidney", code("10200004")), 3),  # a name decides before a code
        (Region("GTV couch"), 2),  # what is left out comes last
        (Region("Body"), 0),
        (Region("left couch side"), 0),
        (Region("Hintergrund", code("125040", "DCM")), 0),
        (Region("spleen"), None),
    ],
)  # fmt: skip
def test_a_region_finds_its_class(region: Region, index: int | None) -> None:
    assert ClassTable(CLASSES, NAMES).index_of(region) == index


def test_names_of_classes_alone_are_enough() -> None:
    table = ClassTable(["background", "liver [1]", "a*"])
    assert [table.index_of(Region(name)) for name in ("Background", "LIVER [1]", "A*", "ab")] == [0, 1, 2, None]
    bracketed = ClassTable(["background", "liver"], {"liver": ["node [*"]})
    assert bracketed.index_of(Region("Node [3]")) == 1


def test_unknown_regions_are_listed_with_all_that_was_found() -> None:
    regions = {1: Region("liver"), 2: Region("Segment_2", code("78961009")), 7: Region("aorta")}
    with pytest.raises(PyrasegError) as caught:
        ClassTable(CLASSES, NAMES).indices(regions, "The file", "segments")
    message = str(caught.value)
    assert "The file has segments named ['Segment_2', 'aorta']" in message
    assert "It holds 'liver', 'Segment_2' (SCT 78961009 meaning), 'aorta'." in message
    assert "list them under 'background' there to leave them out" in message
    everything = ClassTable(CLASSES, {**NAMES, "background": ["*"]})
    assert everything.indices(regions, "The file", "segments") == {1: 1, 2: 0, 7: 0}


@pytest.mark.parametrize(
    ("names", "order", "message"),
    [
        ({"livr": ["x"]}, None, "label_names has 'livr', .* The nearest name is 'Liver'"),
        ({"Liver": "Leber"}, None, "gives 'Liver' 'Leber', not a list"),
        ({"Liver": ["kidney"]}, None, "'kidney' means two classes, 'kidney' and 'Liver'"),
        ({"Liver": [3], "kidney": [3]}, None, "3 means two classes"),
        ({"Liver": [["SCT"]]}, None, "An entry is a name, a code"),
        ({"Liver": [["SCT", 10200004]]}, None, "An entry is a name, a code"),
        ({"Liver": [{"kind": ["SCT", "1"]}]}, None, "An entry is a name, a code"),
        ({"Liver": [True]}, None, "An entry is a name, a code"),
        ({"Liver": [None]}, None, "An entry is a name, a code"),
        (None, ["Liver", "tumor"], "overlap_order has 'tumor'"),
        (None, ["background", "Liver"], "overlap_order must name classes other than the background"),
        (None, ["Liver", "Liver"], "each once"),
    ],
)
def test_a_table_that_means_nothing_is_refused(names: dict, order: list, message: str) -> None:
    with pytest.raises(PyrasegError, match=message):
        ClassTable(CLASSES, names, order)


def test_what_means_several_classes_is_refused() -> None:
    with pytest.raises(PyrasegError, match="'background' means two classes"):
        ClassTable(["background", "Background"])
    table = ClassTable(CLASSES, {"Liver": ["a*"], "lesion": ["*b"], "kidney": [["SCT", "1"]], "background": ["*"]})
    with pytest.raises(PyrasegError, match=r"'ab' means several classes of label_names, \['Liver', 'lesion'\]"):
        table.index_of(Region("ab"))
    twice = ClassTable(CLASSES, {"Liver": [["SCT", "1"]], "kidney": [["SCT", "1"]]})
    with pytest.raises(PyrasegError, match="several classes"):
        twice.index_of(Region("x", code("1")))


def test_values_of_label_maps() -> None:
    values = np.array([[0, 1, 5], [6, 7, 5]])
    assert np.array_equal(ClassTable(CLASSES, NAMES).classes_of(values, "f"), [[0, 0, 1], [2, 2, 1]])
    assert np.array_equal(ClassTable(CLASSES).classes_of(values % 5, "f"), values % 5)
    with pytest.raises(PyrasegError, match=r"f holds the values 2 \(1 pixels\), 4 .* \[0, 1, 5, 6, 7\] are declared"):
        ClassTable(CLASSES, NAMES).classes_of(np.array([2, 4, 5]), "f")
    rest = ClassTable(CLASSES, {"Liver": [5], "background": ["*"]})
    assert np.array_equal(rest.classes_of(values, "f"), values == 5)
    for broken in (0.5, np.nan, -1):
        with pytest.raises(PyrasegError, match="holds the values"):
            ClassTable(CLASSES).classes_of(np.array([0, broken]), "f")
    with pytest.raises(PyrasegError, match=r"holds the values 0\.5"):
        rest.classes_of(np.array([0.5, 5]), "f")


def test_three_classes_overlap_whatever_the_order_of_painting() -> None:
    table = ClassTable(CLASSES, overlap_order=["Liver", "lesion", "kidney"])
    masks = {1: np.array([1, 1, 1, 1, 0]), 2: np.array([0, 1, 1, 0, 0]), 3: np.array([0, 0, 1, 1, 1])}
    for sequence in ([1, 2, 3], [3, 2, 1], [2, 3, 1], [3, 1, 2]):
        canvas = Canvas(table, (5,), "f")
        for index in sequence:
            canvas.paint(index, np.nonzero(masks[index]))
        assert canvas.finished().tolist() == [1, 2, 3, 3, 3]
        canvas.paint(4, (np.array([0]),))
        with pytest.raises(PyrasegError, match="f: 'Liver' and 'right kidney' in 1 pixels overlap"):
            canvas.finished()


def test_codes_are_read_from_every_kind_of_value() -> None:
    dataset = Dataset()
    assert read_codes(dataset, "SegmentedPropertyTypeCodeSequence") == ()
    dataset.SegmentedPropertyTypeCodeSequence = [
        *item(CodeValue="T-62000", CodingSchemeDesignator="SNM3", CodeMeaning="Liver"),
        *item(LongCodeValue="12345678901234567890", CodingSchemeDesignator="X", CodeMeaning="x"),
        *item(CodeMeaning="nothing"),
    ]
    liver, other = read_codes(dataset, "SegmentedPropertyTypeCodeSequence")
    assert liver == Code("10200004", "SCT", "")
    assert other.value == "12345678901234567890"


def test_the_same_table_has_the_same_bytes() -> None:
    """The cache of slices is named after a hash of the pickled transforms."""
    assert pickle.dumps(ClassTable(CLASSES, NAMES)) == pickle.dumps(ClassTable(CLASSES, NAMES))

# SPDX-License-Identifier: Apache-2.0
"""Which classes a case of a data list was annotated for, and what is refused."""

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.labels.annotated import annotated_classes, refuse_others

CLASSES = ["background", "liver", "Kidney, left", "spleen"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, [1, 1, 1, 1]),
        (["liver"], [1, 1, 0, 0]),
        (["SPLEEN", " liver "], [1, 1, 0, 1]),
        (("kidney, left",), [1, 0, 1, 0]),
        (["background", "spleen", "spleen"], [1, 0, 0, 1]),
        (["liver", "Kidney, left", "spleen"], [1, 1, 1, 1]),
    ],
)
def test_names_become_classes(names, expected):
    assert annotated_classes({"image": "a.nii", "annotated": names}, CLASSES).tolist() == [bool(e) for e in expected]
    assert annotated_classes({"image": "a.nii"}, CLASSES).all()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "leave out a case in which none was"),
        ("liver", "'liver' under 'annotated'. Name the classes .* as a list"),
        ([1, 3], r"\[1, 3\] under 'annotated'"),
        ({"liver": True}, "as a list"),
        (["liver", ""], "as a list"),
        (["liver", "spleeen"], "'spleeen' under 'annotated', which is no class .* nearest name is 'spleen'"),
        (["background"], "'background' alone"),
    ],
)
def test_what_names_no_classes_is_refused_with_the_case(names, message):
    with pytest.raises(PyrasegError, match=message) as caught:
        annotated_classes({"image": "some/a.nii", "annotated": names}, CLASSES)
    assert "some/a.nii" in str(caught.value)


def test_a_label_with_another_class_is_refused_with_case_and_class():
    item = {"image": "a.nii", "label": "b.nii", "annotated": ["liver"]}
    refuse_others([0, 1, 255], item, CLASSES)  # 255 is not known
    refuse_others([0, 1, 2, 3], {**item, "annotated": None}, CLASSES)
    with pytest.raises(PyrasegError, match=r"a\.nii has pixels of the class 'spleen'.*\(background, liver\).*b\.nii"):
        refuse_others([1, 3], item, CLASSES)

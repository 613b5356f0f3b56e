# SPDX-License-Identifier: Apache-2.0
"""Of every form of series: SEG, structure set and label map lie where the images lie, as other programs read them."""

from pathlib import Path

import numpy as np
import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.inference.writers.dicom_objects import Algorithm, SourceImages, StructureSetWriter
from bundle.pyraseg.inference.writers.label_map import LabelMapWriter
from bundle.pyraseg.runtime import find_inputs
from tests.helpers.corpus import results
from tests.helpers.corpus.form import Form
from tests.helpers.corpus.forms import FORMS
from tests.helpers.corpus.results import are_same, points
from tests.helpers.segmented_series import NAMES, segmentation_writer


def inputs(form: Form, source: Path, work: Path) -> list[tuple[object, dict]]:
    """Write a form, and return what can be read of it, with the options that it takes."""
    form.write(source)
    found = [item["image"] for item in find_inputs(source)]
    if not form.refused:
        return [(image, {}) for image in found]
    work.mkdir()
    for image in found:
        try:
            results.predicted(image, work)
        except PyrasegError as error:
            return form.remedy(source, str(error), work)
    raise AssertionError("nothing was refused")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_results_lie_where_the_images_lie(form: Form, algorithm: Algorithm, tmp_path: Path) -> None:
    for number, (source, options) in enumerate(inputs(form, tmp_path / "in", tmp_path / "work")):
        if str(source).endswith(".png"):
            continue  # no object refers to it
        out = tmp_path / str(number)
        out.mkdir()
        prediction, stack = results.predicted(source, out, **options)
        labels = results.letters((len(stack), *stack[0].values.shape[:2]))
        placed = stack[0].plane is not None
        (path,) = segmentation_writer(algorithm, complete_headers=True)(prediction)
        assert results.complaints(path) == []
        is_original = not (out / "case_series").exists()  # else a copy is what objects refer to
        if is_original and (found := results.by_highdicom(path, prediction)) is not None:
            np.testing.assert_array_equal(found, labels)
        if placed:
            readers = [results.by_places] + [results.by_dcmqi] * is_regular(prediction)
            for read in readers:
                found = read(path)
                for value in (1, 3):
                    assert are_same(found[value], points(stack, labels, value)), (read, value)
            (path,) = LabelMapWriter()(prediction)
            np.testing.assert_array_equal(results.in_nifti(path, stack), labels)
            sources = SourceImages(complete_headers=True)
            (path,) = StructureSetWriter(class_names=NAMES, algorithm=algorithm, sources=sources)(prediction)
            assert results.complaints(path) == []
            filled = results.by_filling(path, prediction, stack) if is_original else {}
            for name, found in filled.items():
                np.testing.assert_array_equal(found, labels, err_msg=name)


def is_regular(prediction) -> bool:
    """Return whether the slices are a grid of ITK, on which dcmqi puts its results."""
    geometry = prediction.geometry
    is_upright = np.linalg.norm(np.cross(geometry.step, geometry.normal)) < 1e-3
    return len(geometry) > 1 and geometry.is_evenly_spaced and bool(is_upright)

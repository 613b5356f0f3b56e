# SPDX-License-Identifier: Apache-2.0
"""Predictions in every orientation, and who made them, for all writers."""

import numpy as np
import pytest

from bundle.pyraseg.inference.writers.dicom_objects import Algorithm
from bundle.pyraseg_tools.datasets.phantom.cases import phantom_case
from bundle.pyraseg_tools.datasets.phantom.dicom_writer import write_series as write_phantom
from tests.helpers.dicom_files import PATIENT, write_series
from tests.helpers.segmented_series import PHANTOMS, SPACING, STACKS, Case, letters, make_case


@pytest.fixture(scope="module", params=[*STACKS, *PHANTOMS])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    if request.param in STACKS:
        orientation, step = STACKS[request.param]
        labels = letters()
        where = {"orientation": orientation, "slice_step": step, "origin": (-31.5, 42.25, 100.75)}
        write_series(folder / "in", labels.astype(np.int16), **where, spacing=SPACING, SliceThickness=4, **PATIENT)
    else:
        phantom = phantom_case(1, PHANTOMS[request.param], size=96)
        labels = phantom.labels
        write_phantom(folder / "in", phantom, seed=1, number=1)
    return make_case(folder / "in", lambda number: labels[number], folder)


@pytest.fixture(scope="module")
def algorithm(tmp_path_factory: pytest.TempPathFactory) -> Algorithm:
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    weights.write_bytes(b"weights")
    return Algorithm(name="Pyraseg", model_file=weights)

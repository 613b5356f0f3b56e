# SPDX-License-Identifier: Apache-2.0
"""What a report says of its own origin."""

import hashlib

import pytest

from bundle.pyraseg.reporting.sections import provenance

SUMMARY = {
    "cases": 3,
    "patients": 2,
    "settings": {"resamples": 200, "lesion_classes": ["lesion"], "iou_threshold": None},
}
MADE_OF = {
    "dataset": "phantom",
    "weights": {"file": "model.pt", "sha256": hashlib.sha256(b"weights").hexdigest()},
    "seed": 7,
    "split": {"hash": "abc", "training": 4, "test": 3},
    "revision": "0123",
    "versions": {"torch": "2.13.0"},
    "config": {
        "validate#dataset#data": "$@cases['test']",
        "spacing": 2.5,
        "dataset_dir": "/home/doe/data",
        "where": "/home/doe/other",
        "windows_place": "C:\\Users\\doe",
        "device": "$'cpu'",
        "patience": None,
        "optimizer#_target_": "torch.optim.AdamW",
        "optimizer#weight_decay": 0.01,
    },
}


def test_data_weights_versions_and_seed_are_there_and_paths_are_not():
    told = provenance(MADE_OF, SUMMARY, None)
    assert told["Data"] == {
        "data set": "phantom", "split": "abc (4 training, 3 test cases)", "evaluated": "cases['test']",
        "cases": 3, "patients": 2,
    }  # fmt: skip
    assert told["Weights"]["SHA-256"] == MADE_OF["weights"]["sha256"] and told["Weights"]["temperature"] == "none"
    assert told["Software"] == {"revision": "0123", "torch": "2.13.0"}
    assert told["Figures"] == {"resamples": "200", "lesion classes": "lesion", "iou threshold": "none"}
    assert told["Options"] == {"spacing": "2.5", "seed": 7}
    assert "doe" not in str(told)


@pytest.mark.parametrize(
    ("best", "told"), [(b"weights", "best epoch"), (b"others", "not the training"), (None, "unknown")]
)
def test_whose_weights_they_are_is_checked(tmp_path, best, told):
    if best is not None:
        (tmp_path / "best.pt").write_bytes(best)
    assert provenance(MADE_OF, SUMMARY, tmp_path)["Weights"]["origin"].startswith(told)


def test_patients_that_nobody_named_are_not_counted():
    assert provenance(MADE_OF, {**SUMMARY, "unit": "cases"}, None)["Data"]["patients"] == "not named by the data list"


def test_the_temperature_of_a_calibrated_model():
    summary = {**SUMMARY, "calibration": {"temperature": 1.5}}
    assert provenance(MADE_OF, summary, None)["Weights"]["temperature"] == "1.500"

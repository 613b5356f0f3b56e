# SPDX-License-Identifier: Apache-2.0
"""What is told of the models that are there."""

import pytest

from bundle.pyraseg.commands import models
from bundle.pyraseg.core import file_digest

#: By `printf weights | sha256sum`.
DIGEST = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"


@pytest.mark.parametrize("content, told", [(b"weights", "mean dice 0.9"), (b"others", "data of a training here")])
def test_weights_are_told_from_those_of_a_training_by_a_hash_that_is_taken_once(tmp_path, monkeypatch, content, told):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    taken = []
    monkeypatch.setattr(models, "file_digest", lambda path: taken.append(path) or file_digest(path))
    about = {
        "task": "Lesions",
        "label_classes": "lesion",
        "image_classes": "photographs",
        "data_source": "a public data set",
        "intended_use": "research",
        "eval_metrics": {"mean_dice": 0.9},
        "weights": {"models/model.pt": DIGEST},
        "weights_license": "CC-BY-SA-4.0",
    }
    text = models.told(models.Model("model", "lesions", path, about))
    assert (told in text, "a public data set" in text) == (True, content == b"weights")
    assert "CC-BY-SA-4.0" in text
    assert taken == [path]

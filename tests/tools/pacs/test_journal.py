# SPDX-License-Identifier: Apache-2.0
"""The folder of a worker has one user at a time."""

import json

import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.pacs import Journal, sole_user
from bundle.pyraseg_tools.pacs.journal import Entry
from tests.helpers.holder import is_taken


def test_a_second_worker_of_the_same_process_neither_gets_in_nor_lets_others_in(tmp_path):
    with sole_user(tmp_path) as images:
        (images / "series").touch()
        with pytest.raises(PyrasegError, match="Another worker of this process writes to"), sole_user(tmp_path):
            pass
        assert (images / "series").exists() and is_taken(tmp_path, "worker")
    assert list(tmp_path.iterdir()) == []


def test_images_that_cannot_be_removed_leave_the_folder_free(tmp_path):
    with pytest.raises(FileNotFoundError), sole_user(tmp_path) as images:
        images.rmdir()
    assert not is_taken(tmp_path, "worker")


def test_a_journal_of_the_format_before_is_read_on(tmp_path):
    """What it has as stored is not made and stored a second time."""
    entry = {"status": "stored", "instances": 3, "segmentation": ["1.2", "1.2.3"], "reason": ""}
    failed = {"status": "failed", "instances": 3, "segmentation": [], "reason": "damaged"}
    path = tmp_path / "journal.json"
    path.write_text(json.dumps({"format": 1, "models": {"abc": {"1.1": entry, "1.4": failed}}}))
    journal = Journal(path, model_hash="abc")
    assert journal["1.1"] == Entry("stored", 3, (("1.2", "1.2.3"),))
    journal["1.5"] = Entry("storing", 2, (("1.2", "1.2.4"), ("1.2", "1.2.5")))
    again = Journal(path, model_hash="abc")
    assert again["1.1"] == journal["1.1"] and again["1.5"] == journal["1.5"]
    assert again["1.4"] == Entry("failed", 3, reason="damaged")

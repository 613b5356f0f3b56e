# SPDX-License-Identifier: Apache-2.0
"""The folder of a worker has one user at a time."""

import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.pacs import sole_user
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

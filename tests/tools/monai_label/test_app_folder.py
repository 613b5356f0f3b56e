# SPDX-License-Identifier: Apache-2.0
"""Which bundles one server takes, and what is changed in them for it."""

import json
from pathlib import Path

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.packaging.archive import archive_bytes
from bundle.pyraseg.packaging.form import BILL
from bundle.pyraseg.packaging.sums import SIGNATURE, SUMS, sums_text
from bundle.pyraseg_tools.monai_label.app_folder import put_bundles
from tests.helpers.packages import Package

NAME = "pyraseg_dermoscopy"


def other_code(package: Package, folder: Path, name: str) -> Path:
    """Write a package whose code has one line more."""
    files = {path: content for path, content in package.files.items() if path not in (SUMS, SIGNATURE)}
    files["bundle/pyraseg/core/errors.py"] += b"# another version\n"
    files[BILL] = files[BILL].replace(NAME.encode(), name.encode())
    path = folder / f"{name}_v0.1.0.zip"
    path.write_bytes(archive_bytes(name, {**files, SUMS: sums_text(files)}))
    return path


def foreign(folder: Path) -> Path:
    """Write the least that is a bundle, with code of its own."""
    bundle = folder / "foreign"
    (bundle / "configs").mkdir(parents=True)
    for name in ("inference.json", "metadata.json"):
        (bundle / "configs" / name).write_text("{}")
    return bundle


def test_photographs_lose_their_channel_and_either_kind_of_mask_is_read(package, tmp_path):
    (folder,) = put_bundles([package.zip], tmp_path / "app")
    inference, train, metadata = (
        json.loads((folder / "configs" / f"{name}.json").read_text()) for name in ("inference", "train", "metadata")
    )
    assert inference["postprocessing"]["transforms"][-1] == {"_target_": "SqueezeDimd", "keys": "pred", "dim": 0}
    assert len(metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]) == 2
    assert train["mask_threshold"] == 1
    assert [step for step in train["run"] if "retrain" in str(step)] == [train["run"][-1]]
    assert not any("promote" in str(step) for step in train["run"])


def test_a_bundle_that_is_there_keeps_what_was_retrained(package, tmp_path):
    (folder,) = put_bundles([package.zip], tmp_path)
    (folder / "models" / "model.pt").write_bytes(b"retrained")
    put_bundles([package.zip], tmp_path)
    assert (folder / "models" / "model.pt").read_bytes() == b"retrained"


def test_a_second_version_is_refused_with_the_remedy(package, tmp_path):
    other = other_code(package, tmp_path, "pyraseg_other")
    with pytest.raises(PyrasegError, match=r"two versions of Pyraseg.*second server: .* --app-dir and another --port"):
        put_bundles([package.zip, other], tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_another_version_of_what_is_there_is_refused(package, tmp_path):
    put_bundles([package.zip], tmp_path / "app")
    with pytest.raises(PyrasegError, match="holds another version of pyraseg_dermoscopy"):
        put_bundles([other_code(package, tmp_path, NAME)], tmp_path / "app")


def test_code_of_another_version_than_the_servers_is_told(package, tmp_path, caplog):
    put_bundles([package.zip], tmp_path / "app")
    assert not caplog.records
    put_bundles([other_code(package, tmp_path, "pyraseg_other")], tmp_path / "other")
    told = "pyraseg_other was made by another version of Pyraseg than the one installed here: 1 of its"
    assert told in caplog.text and "bundle/pyraseg/core/errors.py" in caplog.text


def test_a_foreign_bundle_goes_beside_it(package, tmp_path):
    folders = put_bundles([package.zip, foreign(tmp_path)], tmp_path / "app")
    assert [folder.name for folder in folders] == [NAME, "foreign"]


def test_what_is_no_bundle_is_refused(package, tmp_path):
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(package.zip.read_bytes()[:-1])
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (damaged, "no complete zip"),
        (tmp_path / "empty", "no bundle"),
        (tmp_path / "none", "no such"),
    ):
        with pytest.raises(PyrasegError, match=reason):
            put_bundles([path], tmp_path / "app")
    assert not (tmp_path / "app").exists()

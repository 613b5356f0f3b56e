# SPDX-License-Identifier: Apache-2.0
"""Files that are missing, are malformed or contradict each other are no package."""

import json

import jsonschema
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.packaging.archive import archive_bytes
from bundle.pyraseg.packaging.form import BILL, METADATA, MODEL, check_form
from tests.helpers.packages import NAME, VERSION, refused, resummed


def test_metadata_as_the_schema_has_them(package, real_data):
    schema = json.loads((real_data / "monai_meta_schema_20240725.json").read_text())
    metadata = json.loads(package.files[METADATA])
    jsonschema.validate(metadata, schema)
    tensor = metadata["network_data_format"]["outputs"]["pred"]
    for place, keys in ((metadata, schema["required"]), (tensor, schema["$defs"]["tensor"]["required"])):
        for key in keys:
            for wrong in (None, ["x"] if not isinstance(place[key], list) else "x"):
                kept = place.pop(key)
                if wrong is not None:
                    place[key] = wrong
                with pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate(metadata, schema)
                with pytest.raises(PyrasegError, match=f"has no .*{key} of type"):
                    check_form(NAME, package.files | {METADATA: json.dumps(metadata).encode()})
                place[key] = kept
    assert check_form(NAME, package.files | {METADATA: json.dumps(metadata).encode()})["version"] == VERSION


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"LICENSE": None}, "LICENSE is missing"),
        ({"configs/train.json": b"{"}, "configs/train.json is no JSON"),
        ({"configs/train.json": b'{"run": 1, "run": 2}'}, "a key stands in it twice"),
        ({"configs/train.json": b"[" * 100_000}, "configs/train.json is no JSON"),
        ({"configs/train.json": b"[]"}, "is no JSON object"),
        ({"configs/evaluate.json": b'{"output_dir": "x"}'}, "does not stand alone"),
        ({METADATA: b"{}"}, "configs/metadata.json has no schema of type str"),
        ({"docs/changelog.md": None}, "docs/changelog.md is missing"),
        ({MODEL: b"other"}, "are not the SHA-256 of models/model.pt"),
        ({BILL: b'{"bomFormat": "CycloneDX", "metadata": []}'}, "is no CycloneDX bill"),
        ({BILL: b"{}"}, f"is no CycloneDX bill of {NAME} {VERSION}"),
    ],
)
def test_files_that_contradict_each_other(changed, said, package, tmp_path):
    content = archive_bytes(NAME, resummed(package.files, **changed))
    assert said in refused(content, tmp_path, unsigned=True)


def test_a_version_that_a_terminal_would_obey(package):
    metadata = json.loads(package.files[METADATA]) | {"version": "\x1b[2J9.9.9"}
    with pytest.raises(PyrasegError, match=r"'\\x1b\[2J9.9.9', which is not of the form"):
        check_form(NAME, package.files | {METADATA: json.dumps(metadata).encode()})


def test_a_version_without_an_entry_in_the_changelog(package):
    metadata = json.loads(package.files[METADATA])
    for changelog in ({"0.0.1": "The first."}, {VERSION: None}, [VERSION], None):
        changed = package.files | {METADATA: json.dumps(metadata | {"changelog": changelog}).encode()}
        with pytest.raises(PyrasegError, match=f"has no entry of {VERSION} in its changelog"):
            check_form(NAME, changed)


def test_the_name_of_its_folder_is_its_own(package, tmp_path):
    assert "is no CycloneDX bill of configs" in refused(
        archive_bytes("configs", package.files), tmp_path, unsigned=True
    )

# SPDX-License-Identifier: Apache-2.0
"""A package that was tampered with is refused, and nothing of it runs; one that was not is accepted."""

import hashlib
import io
import json
import re
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.pyraseg.commands import main
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.packaging.archive import MOST_FILES, archive_bytes, read_archive, unpack
from bundle.pyraseg.packaging.form import BILL, METADATA, MODEL, check_form
from bundle.pyraseg.packaging.signature import sign
from bundle.pyraseg.packaging.sums import SIGNATURE, SUMS, sums_text
from bundle.pyraseg.packaging.verification import verify
from bundle.pyraseg_tools.publishing.packing import pack
from tests.configs.test_configs import PROGRAMS, merged
from tests.helpers.commands import ROOT
from tests.helpers.packages import VERSION, Package, write_keys

NAME = "pyraseg_dermoscopy"
Files = dict[str, bytes]


def resummed(files: Files, **changed: bytes | None) -> Files:
    """Return files with others changed, added or (None) left out and new sums, as a forger without the key would."""
    files = {name: content for name, content in {**files, **changed}.items() if content is not None}
    files = {name: content for name, content in files.items() if name not in (SUMS, SIGNATURE)}
    return files | {SUMS: sums_text(files)}


@pytest.fixture
def trap(package: Package, tmp_path: Path) -> tuple[Files, Path]:
    """Return a package whose code and whose configs leave a mark when they run, and the path of the mark."""
    mark = tmp_path / "it_ran"
    files = dict(package.files)
    code = f"open({str(mark)!r}, 'w').close()"
    files["bundle/pyraseg/__init__.py"] += code.encode()
    for name in ("train", "inference", "evaluate"):
        config = json.loads(files[f"configs/{name}.json"])
        config["bundle_root"] = config["network_def"]["encoder"] = f"$({code}, 'tf_efficientnet_lite0')[1]"
        files[f"configs/{name}.json"] = json.dumps(config).encode()
    return files, mark


def refused(content: bytes, tmp_path: Path, **options: object) -> str:
    """Return what is said of a zip that is refused."""
    path = tmp_path / "given.zip"
    path.write_bytes(content)
    with pytest.raises(PyrasegError) as error:
        verify(path, **options)
    said = str(error.value)
    assert said.startswith(f"{path} ")
    return said


# --- accepted ---


def test_as_it_was_made(package, capsys):
    assert main(["verify", str(package.zip), "--key", str(package.public)]) == 0
    said = f"Verified: {NAME} {VERSION}: {len(package.files)} files, signed by {package.public}\n"
    assert capsys.readouterr().out == said


@pytest.mark.slow
def test_a_task_on_volumes(tmp_path, capsys):
    network = merged(PROGRAMS["infer"]).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    path = pack(ROOT, "phantom", tmp_path / "out", model=tmp_path / "model.pt")
    assert path.name == f"pyraseg_phantom_v{VERSION}.zip"
    assert main(["verify", str(path), "--unsigned"]) == 0
    files = read_archive(path)[1]
    labels = np.load(io.BytesIO(files["golden/expected.npz"]))["labels"]
    (tmp_path / "input.nii").write_bytes(files["golden/input.nii"])
    assert labels.shape[1:] == nib.load(tmp_path / "input.nii").shape


# --- who made it ---


def test_the_trap_springs_where_its_code_is_trusted(trap, tmp_path):
    """The marks of the tests below are left when something runs, so that their absence says something."""
    files, mark = trap
    refused(archive_bytes(NAME, resummed(files)), tmp_path)
    assert not mark.exists()
    path = tmp_path / "given.zip"
    assert verify(path, unsigned=True).title == f"{NAME} {VERSION}"
    assert mark.exists()


def test_forged_sums_do_not_help(trap, package, tmp_path):
    files, mark = trap
    forged = resummed(files)
    stolen = forged | {SIGNATURE: package.files[SIGNATURE]}
    private, _ = write_keys(tmp_path)
    own = forged | {SIGNATURE: sign(forged[SUMS], private)}
    for content in (stolen, own):
        said = refused(archive_bytes(NAME, content), tmp_path, key=package.public)
        assert "its signature is not by the key that was given" in said and "Nothing of it was run" in said
    assert "it has no signature" in refused(archive_bytes(NAME, forged), tmp_path, key=package.public)
    assert "nothing says who made it" in refused(archive_bytes(NAME, forged), tmp_path)
    assert not mark.exists()


def test_a_signature_without_a_key_proves_nothing(package, tmp_path):
    said = refused(package.zip.read_bytes(), tmp_path)
    assert f"holds {NAME} {VERSION}, whole and well formed" in said and "It has a signature: give" in said


@pytest.mark.parametrize("kind", ["absent", "private", "rsa", "none"])
def test_a_key_that_is_none(kind, package, tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    key = package.private if kind == "private" else tmp_path / "key.pem"
    if kind == "none":
        key.write_text("no key")
    if kind == "rsa":
        public = generate_private_key(65537, 2048).public_key()
        key.write_bytes(
            public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    said = {"absent": "no key at", "rsa": "another kind"}.get(kind, "is no public key in PEM without a password")
    with pytest.raises(PyrasegError, match=said):
        verify(package.zip, key=key)


# --- sums ---


@pytest.mark.parametrize("where", ["models/model.pt", "configs/train.json", "SHA256SUMS", "SHA256SUMS.sig"])
def test_one_bit(where, package, tmp_path):
    content = bytearray(package.zip.read_bytes())
    content[content.index(package.files[where]) + 60] ^= 1
    said = refused(bytes(content), tmp_path, key=package.public)
    assert "no whole zip: Bad CRC-32" in said  # the zip's own sum, which needs no forger to be wrong
    changed = dict(package.files)
    changed[where] = changed[where][:60] + bytes([changed[where][60] ^ 1]) + changed[where][61:]
    said = refused(archive_bytes(NAME, changed), tmp_path, key=package.public)
    expected = {"SHA256SUMS": "is not the file", "SHA256SUMS.sig": "its signature is not by"}
    assert expected.get(where, f"{where} is not the file that SHA256SUMS names") in said


def change(files: Files, kind: str) -> Files:
    files = dict(files)
    if kind == "swapped":
        files["configs/train.json"] = files["configs/inference.json"]
    elif kind == "added":
        files["bundle/pyraseg/more.py"] = b""
    elif kind == "added beside":
        files["sitecustomize.py"] = b""
    elif kind == "missing":
        del files["configs/evaluate.json"]
    elif kind == "no sums":
        del files[SUMS]
    elif kind == "malformed":
        files[SUMS] += b"not a sum\n"
    elif kind == "twice":
        files[SUMS] += files[SUMS].splitlines(keepends=True)[0]
    return files


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("swapped", "configs/train.json is not the file that SHA256SUMS names"),
        ("added", "bundle/pyraseg/more.py has no sum"),
        ("added beside", "sitecustomize.py has no sum"),
        ("missing", "configs/evaluate.json stands in SHA256SUMS and is missing"),
        ("no sums", "it has no SHA256SUMS"),
        ("malformed", "of its SHA256SUMS is malformed"),
        ("twice", "of its SHA256SUMS is malformed"),
    ],
)
def test_files_that_are_not_those_of_the_sums(kind, said, trap, tmp_path):
    files, mark = trap
    files = resummed(files)
    assert said in refused(archive_bytes(NAME, change(files, kind)), tmp_path, unsigned=True)
    assert not mark.exists()


# --- the zip ---


def rewritten(files: Files, each: Callable[[zipfile.ZipInfo], object], *more: tuple[str, bytes]) -> bytes:
    """Return a zip of files and of more entries, with `each` called on what is written of each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in [*((f"{NAME}/{name}", files[name]) for name in sorted(files)), *more]:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            each(info)
            archive.writestr(info, content, compress_type=info.compress_type)
    return buffer.getvalue()


def nothing(_: zipfile.ZipInfo) -> None:
    pass


def test_the_form_of_a_package_is_that_of_a_plain_zip(package):
    assert rewritten(package.files, nothing) == package.zip.read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        f"{NAME}/../../evil.py", "/etc/evil", "../evil", f"{NAME}\\..\\evil", "C:/evil", f"{NAME}//evil",
        f"{NAME}/./evil", f"{NAME}/a\0.py", f"{NAME}/nul.", f"{NAME}/.hidden", f"{NAME}/folder/",
        f"{NAME}/caf\u00e9", f"{NAME}/a b",
    ],
)  # fmt: skip
def test_paths_that_are_not_safe(path, trap, tmp_path):
    files, mark = trap
    sound = (
        f"{NAME}/{'x' * (len(path.encode()) - len(NAME) - 1)}"
        if len(path.encode()) > len(NAME) + 1
        else "x" * len(path)
    )
    content = rewritten(files, nothing, (sound, b"")).replace(sound.encode(), path.encode())
    if not path.isascii():  # what says that a name is in UTF-8
        content = rewritten(files, nothing, (path, b""))
    assert "which is no safe path of a file" in refused(content, tmp_path, unsigned=True)
    assert not mark.exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(kind, package, tmp_path):
    def as_link(info: zipfile.ZipInfo) -> None:
        if info.filename.endswith("evil"):
            info.external_attr = (kind | 0o777) << 16

    content = rewritten(package.files, as_link, (f"{NAME}/evil", b"/etc/passwd"))
    assert f"{NAME}/evil, which is a link or a device" in refused(content, tmp_path, unsigned=True)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["LICENSE", "license"])
def test_two_files_of_one_name(name, package, tmp_path):
    content = rewritten(package.files, nothing, (f"{NAME}/{name}", b""))
    assert "twice, which may be one file or the other" in refused(content, tmp_path, unsigned=True)


def bomb(path: Path, size: int) -> None:
    """Write a zip of one file of zeros, which grows a thousandfold."""
    compress = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = 1 << 26
    block = compress.compress(bytes(part)) + compress.flush(zlib.Z_FULL_FLUSH)  # stands alone, so it may repeat
    data = block * (size // part) + compress.flush()
    name, sizes = f"{NAME}/zeros".encode(), struct.pack("<2HQQ", 1, 16, size, len(data))
    fields = struct.pack("<5H3L2H", 45, 0, 8, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(sizes))
    local = b"PK\3\4" + fields + name + sizes
    entry = b"PK\1\2" + struct.pack("<H", 45) + fields + struct.pack("<3H2L", 0, 0, 0, 0o644 << 16, 0) + name + sizes
    end = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, len(entry), len(local + data), 0)
    path.write_bytes(local + data + entry + end)


def test_a_bomb_of_ten_gigabytes(tmp_path):
    path = tmp_path / "bomb.zip"
    bomb(path, 10 << 30)
    assert path.stat().st_size < 12e6
    with zipfile.ZipFile(path) as archive, archive.open(f"{NAME}/zeros") as file:  # it is one: others would unpack it
        assert file.read(1 << 20) == bytes(1 << 20)
    assert "to 10,737,418,240 bytes; a package is not compressed" in refused(path.read_bytes(), tmp_path, unsigned=True)


def test_too_many_files(tmp_path):
    content = rewritten({f"f{index}": b"" for index in range(MOST_FILES + 1)}, nothing)
    assert f"it holds {MOST_FILES + 1:,} files" in refused(content, tmp_path)


def test_more_files_than_its_end_tells_of(package, tmp_path):
    content = bytearray(rewritten({f"f{index}": b"" for index in range(200)}, nothing))
    content[-14:-10] = struct.pack("<2H", 1, 1)
    assert "holds 1 files, in a list of" in refused(bytes(content), tmp_path)


def test_compressed_again(package, tmp_path):
    def deflate(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED

    assert "a package is not compressed" in refused(rewritten(package.files, deflate), tmp_path, key=package.public)


@pytest.mark.parametrize("kind", ["before", "behind", "comment", "between", "date", "second folder", "cut", "text"])
def test_anything_but_its_files(kind, package, tmp_path):
    content = package.zip.read_bytes()
    if kind == "before":
        content = b"#!/bin/sh\nrm -rf ~\n" + content
    elif kind == "behind":
        content += b"more"
    elif kind == "comment":
        content = content[:-2] + struct.pack("<H", 4) + b"more"
    elif kind == "between":  # an entry that no list of files names, but that a reader from the front unpacks
        start = content.index(b"PK\1\2" + bytes([20, 3]))
        hidden = archive_bytes(NAME, {"evil.py": b"print()"})
        hidden = hidden[: hidden.index(b"PK\1\2")]
        offset = struct.pack("<L", start + len(hidden))
        content = content[:start] + hidden + content[start:-6] + offset + content[-2:]
    elif kind == "date":
        content = rewritten(package.files, lambda info: setattr(info, "date_time", (2020, 1, 1, 0, 0, 0)))
    elif kind == "second folder":
        content = rewritten(package.files, nothing, ("other/file", b""))
    elif kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "text":
        content = b"<html>404</html>"
    said = refused(content, tmp_path, key=package.public)
    assert any(
        words in said
        for words in ("it was not written as a package is", "it is no whole zip", "lies outside its folder")
    )


def test_every_bit_of_a_zip_counts(tmp_path):
    content, path = archive_bytes("p", {"a": b"xy", "b/c": b"z"}), tmp_path / "given.zip"
    path.write_bytes(content)
    assert read_archive(path) == ("p", {"a": b"xy", "b/c": b"z"})
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(PyrasegError):
            read_archive(path)


def test_no_file(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "no.zip")]) == 1
    assert capsys.readouterr().err == (
        f"pyraseg: {tmp_path / 'no.zip'} is refused: there is no such file. Nothing of it was run. "
        "Get the package again from who made it.\n"
    )


# --- a folder ---


@pytest.fixture
def folder(package: Package, tmp_path: Path) -> Path:
    """Return the files of the package in a folder of another name, as a hub and git leave it."""
    folder = tmp_path / "chosen"
    unpack(package.files, folder)
    for name in (".gitattributes", ".cache/huggingface/x.lock", ".git/HEAD"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_folder_with_the_files_of_a_package(folder, package, capsys):
    assert main(["verify", str(folder), "--key", str(package.public)]) == 0
    said = f"Verified: {NAME} {VERSION}: {len(package.files)} files, signed by {package.public}\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "LICENSE").write_text("mine"), "LICENSE is not the file that SHA256SUMS names"),
        (lambda f: (f / "torch.py").write_text(""), "torch.py has no sum"),
        (lambda f: (f / "configs" / ".cache").mkdir(), "'configs/.cache', which is no safe path"),
        (lambda f: (f / "README.md").unlink(), "README.md stands in SHA256SUMS and is missing"),
        (lambda f: (f / "more").symlink_to(f / "LICENSE"), "it holds more, which is a link"),
        (lambda f: (f / "more").symlink_to(f), "it holds more, which is a link"),
        (lambda f: (f / "a b").write_text(""), "'a b', which is no safe path of a file"),
        (lambda f: shutil.rmtree(f / "models"), "models/model.pt stands in SHA256SUMS and is missing"),
    ],
)  # fmt: skip
def test_a_folder_that_was_changed(change, said, folder, package):
    change(folder)
    with pytest.raises(PyrasegError, match=re.escape(said)) as told:
        verify(folder, key=package.public)
    assert str(told.value).startswith(f"{folder} is refused: ")


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(PyrasegError, match="it has no SHA256SUMS"):
        verify(tmp_path, unsigned=True)


@pytest.mark.parametrize("name", ["../evil", "a/b", "\x1b[2J", "", None])
def test_a_folder_whose_bill_names_a_place(name, package, tmp_path):
    bill = json.loads(package.files[BILL])
    bill["metadata"]["component"]["name"] = name
    unpack(resummed(package.files, **{BILL: json.dumps(bill).encode()}), tmp_path / "folder")
    with pytest.raises(PyrasegError, match="which no package has" if name is not None else "is no CycloneDX bill"):
        verify(tmp_path / "folder", unsigned=True)


# --- form ---


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


# --- what it does ---


def with_config(files: Files, name: str, **changed: object) -> Files:
    config = json.loads(files[f"configs/{name}.json"])
    return resummed(files, **{f"configs/{name}.json": json.dumps(config | changed).encode()})


def with_weights(files: Files) -> Files:
    weights = torch.load(io.BytesIO(files[MODEL]), weights_only=True)
    last = list(weights)[-1]
    weights[last] = weights[last] + 1
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    metadata = json.loads(files[METADATA]) | {"weights": {MODEL: digest}}
    return resummed(files, **{MODEL: buffer.getvalue(), METADATA: json.dumps(metadata).encode()})


def smaller(*programs: str) -> Callable[[Files], Files]:
    """Return what makes the network of some programs see a smaller picture."""

    def change(files: Files) -> Files:
        for program in programs:
            files = with_config(files, program, slice_size=[128, 128])
        return files

    return change


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param(smaller("inference", "train"), "preprocessing gives another image", id="preprocessing"),
        pytest.param(smaller("inference"), "training shows the network another", id="training", marks=pytest.mark.slow),
        pytest.param(with_weights, "the network gives other scores", id="weights", marks=pytest.mark.slow),
        pytest.param(
            lambda files: with_config(files, "inference", class_names=["a", "b", "c"]),
            "network does not take or give", id="shapes", marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda files: with_config(files, "inference", min_size=10**9),
            "have another label", id="labels", marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_package_that_works_otherwise(changed, said, package, tmp_path):
    told = refused(archive_bytes(NAME, changed(package.files)), tmp_path, unsigned=True)
    assert said in told and "on this machine it works otherwise" in told


def test_the_program_needs_no_torch_to_refuse(package, tmp_path):
    path = tmp_path / "given.zip"
    path.write_bytes(package.zip.read_bytes()[:-1])
    code = "import sys; from bundle.pyraseg.commands import main; main(['verify', *sys.argv[1:]])"
    code += "; sys.exit('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "is refused" in run.stderr


def test_reading_leaves_nothing_on_the_disk(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(package.zip, tmp_path / "given.zip")
    read_archive(tmp_path / "given.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["given.zip"]

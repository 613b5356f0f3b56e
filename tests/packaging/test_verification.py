# SPDX-License-Identifier: Apache-2.0
"""A package as it was made is accepted; one that works otherwise on this machine is refused."""

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.pyraseg.commands import main
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.packaging.archive import archive_bytes, read_archive
from bundle.pyraseg.packaging.form import METADATA, MODEL
from bundle.pyraseg.training import save_model
from bundle.pyraseg_tools.publishing.packing import pack
from tests.helpers.commands import ROOT
from tests.helpers.configs import PROGRAMS, merged
from tests.helpers.packages import NAME, VERSION, Files, refused, resummed


@pytest.mark.slow
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


def test_weights_of_other_settings_make_no_package(tmp_path):
    config = merged(PROGRAMS["infer"])
    settings = config.get_parsed_content("settings")
    names = ["background", "lung"]
    trained = dataclasses.replace(settings, values={**settings.values, "class_names": names})
    save_model(config.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt", settings=trained)
    with pytest.raises(PyrasegError, match=r'class_names: \["background", "lung"\] in its training.*') as told:
        pack(ROOT, "phantom", tmp_path / "out", model=tmp_path / "model.pt")
    assert "name the task that the weights are of (--task)" in str(told.value)
    assert "--class_names" not in str(told.value) and "--may_differ" not in str(told.value)  # it takes neither
    assert not (tmp_path / "out").exists()


def test_no_file(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "no.zip")]) == 1
    assert capsys.readouterr().err == (
        f"pyraseg: {tmp_path / 'no.zip'} is refused: there is no such file. None of its code was run. "
        "Get the package again from its maker.\n"
    )


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


@pytest.mark.slow
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

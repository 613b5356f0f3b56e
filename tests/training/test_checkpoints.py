# SPDX-License-Identifier: Apache-2.0
"""Files of weights, and the one step that changes the bundle's model."""

import hashlib
import re
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.pspnet import PSPNet
from bundle.pyraseg.training.checkpoints import load_model, promote, save_atomically, start_from
from tests.helpers.warm import python

REMEDY = "Train one first."


def weight(path: Path) -> float:
    return torch.load(path, weights_only=True)["weight"].item()


def listed(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_kill_while_saving_leaves_the_weights_before(tmp_path):
    path = tmp_path / "last.pt"
    save_atomically({"weight": torch.tensor(1.0)}, path)
    program = """
import os, pickle, signal, sys, torch
from bundle.pyraseg.training.checkpoints import save_atomically
class Deadly:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)
save_atomically({"weight": torch.zeros(1000), "then": Deadly()}, sys.argv[1])
"""
    done = python("-c", program, str(path), cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert weight(path) == 1


# --- loading ---


def test_a_model_comes_back_as_it_was_saved(tmp_path):
    saved = nn.Linear(3, 2)
    save_atomically(saved.state_dict(), tmp_path / "model.pt")
    network = nn.Linear(3, 2)
    assert load_model(network, tmp_path / "model.pt", remedy=REMEDY) is network
    assert torch.equal(network.weight, saved.weight) and torch.equal(network.bias, saved.bias)


def test_a_model_that_is_not_there_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(PyrasegError, match=r"There is no trained model at .*model.pt. Train one first."):
        load_model(nn.Linear(3, 2), tmp_path / "model.pt", remedy=REMEDY)


@pytest.mark.parametrize(
    "content",
    [nn.Linear(3, 4).state_dict(), nn.Conv2d(1, 1, 1, bias=False).state_dict(), nn.Linear(3, 2), [1, 2], b"text", b""],
    ids=["another size", "other names", "a whole module", "no state dict", "no torch file", "an empty file"],
)
def test_a_file_that_is_no_model_of_this_network_is_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(PyrasegError) as refused:
        load_model(nn.Linear(3, 2), path, remedy=REMEDY)
    fits_not = r"The model .*model.pt does not fit the network of this config \(.+\)\. Use"
    assert re.match(fits_not, str(refused.value)) or "is not a file of weights. Give" in str(refused.value)
    assert "weights_only" not in str(refused.value)  # torch's text advises to run what is in the file


def test_what_does_not_fit_is_told(tmp_path):
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "model.pt")
    with pytest.raises(PyrasegError, match=r"\(size mismatch for weight: .*\[4, 3\].*\[2, 3\]\)\)\. Use"):
        load_model(nn.Linear(3, 2), tmp_path / "model.pt", remedy=REMEDY)


# --- promotion ---


def test_promotion_copies_the_weights_and_keeps_the_run(tmp_path):
    save_atomically({"weight": torch.tensor(1.0)}, tmp_path / "run" / "best.pt")
    promote(tmp_path / "run" / "best.pt", tmp_path / "models" / "model.pt")
    assert listed(tmp_path) == ["models/model.pt", "run/best.pt"]
    assert weight(tmp_path / "models" / "model.pt") == 1


def test_promotion_keeps_every_replaced_model_under_its_hash(tmp_path):
    model, digests = tmp_path / "models" / "model.pt", []
    for value in (1.0, 2.0, 1.0, 1.0, 3.0):  # also one that comes back, and one that replaces itself
        save_atomically({"weight": torch.tensor(value)}, tmp_path / "best.pt")
        digests.append(hashlib.sha256((tmp_path / "best.pt").read_bytes()).hexdigest()[:12])
        promote(tmp_path / "best.pt", model)
    assert weight(model) == 3
    assert listed(model.parent) == sorted(["model.pt", *{f"replaced/model-{digest}.pt" for digest in digests[:4]}])
    assert weight(model.parent / "replaced" / f"model-{digests[1]}.pt") == 2


def test_promotion_without_weights_leaves_the_model_alone(tmp_path):
    model = tmp_path / "models" / "model.pt"
    save_atomically({"weight": torch.tensor(1.0)}, model)
    with pytest.raises(PyrasegError, match="train with validation first"):
        promote(tmp_path / "best.pt", model)
    assert weight(model) == 1 and listed(tmp_path) == ["models/model.pt"]


# --- fine-tuning ---


def network(classes=3, **options):
    options = {"encoder": "resnet18", "bottleneck": 32, **options}
    return PSPNet(spatial_dims=2, in_channels=3, out_channels=classes, pretrained=False, **options)


def test_a_training_starts_from_the_weights_of_a_model(tmp_path):
    model = network()
    save_atomically(model.state_dict(), tmp_path / "model.pt")
    trained, average = network(), network()
    start_from(tmp_path / "model.pt", networks=[trained, average])
    for started in (trained.state_dict(), average.state_dict()):
        assert all(torch.equal(started[name], value) for name, value in model.state_dict().items())
    start_from(None, networks=[trained])
    assert all(torch.equal(trained.state_dict()[name], value) for name, value in model.state_dict().items())


def test_other_classes_get_a_new_classifier(tmp_path, caplog):
    model, other = network(classes=3), network(classes=2)
    save_atomically(model.state_dict(), tmp_path / "model.pt")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with caplog.at_level("INFO"):
        start_from(tmp_path / "model.pt", networks=[other])
    for name, value in other.state_dict().items():
        source = before if ".classifier." in name else model.state_dict()
        assert torch.equal(value, source[name]), name
    assert "with a new classifier" in caplog.text


@pytest.mark.parametrize("options", [{"encoder": "resnet34"}, {"bottleneck": 16}, {"decoder": "fpn"}])
def test_a_model_of_another_network_is_no_start(tmp_path, options):
    save_atomically(network(**options).state_dict(), tmp_path / "model.pt")
    with pytest.raises(PyrasegError, match="is of another network"):
        start_from(tmp_path / "model.pt", networks=[network()])


def test_a_start_that_is_no_model_is_told(tmp_path):
    with pytest.raises(PyrasegError, match="There is no model at"):
        start_from(tmp_path / "model.pt", networks=[network()])
    (tmp_path / "model.pt").write_text("text")
    with pytest.raises(PyrasegError, match="is no model to start from"):
        start_from(tmp_path / "model.pt", networks=[network()])

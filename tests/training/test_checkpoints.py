# SPDX-License-Identifier: Apache-2.0
"""Files of weights, and the one step that changes the bundle's model."""

import dataclasses
import hashlib
import re
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.settings import ModelSettings
from bundle.pyraseg.networks.pspnet import PSPNet
from bundle.pyraseg.networks.weights import read_weights
from bundle.pyraseg.training.checkpoints import load_model, promote, read_model, save_atomically, save_model, start_from
from bundle.pyraseg.workflow import read_config
from tests.helpers.commands import ROOT
from tests.helpers.warm import python

REMEDY = "Train one first."
NONE = ModelSettings({}, {})


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
    assert load_model(network, tmp_path / "model.pt", settings=NONE, remedy=REMEDY) is network
    assert torch.equal(network.weight, saved.weight) and torch.equal(network.bias, saved.bias)


def test_a_model_that_is_not_there_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(PyrasegError, match=r"There is no trained model at .*model.pt. Train one first."):
        load_model(nn.Linear(3, 2), tmp_path / "model.pt", settings=NONE, remedy=REMEDY)


FITS_NOT = r"The model .*model\.pt does not fit the network of this config \(.+\)\. Use"
NO_WEIGHTS = r".*model\.pt is not a file of weights\. Give"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(nn.Linear(3, 4).state_dict(), FITS_NOT, id="another size"),
        pytest.param(nn.Conv2d(1, 1, 1, bias=False).state_dict(), FITS_NOT, id="other names"),
        pytest.param(nn.Linear(3, 2), NO_WEIGHTS, id="a whole module"),
        pytest.param([1, 2], r".*model\.pt holds more than weights\. Give", id="no state dict"),
        pytest.param(b"text", NO_WEIGHTS, id="no torch file"),
        pytest.param(b"", NO_WEIGHTS, id="an empty file"),
    ],
)
def test_a_file_that_is_no_model_of_this_network_is_refused(tmp_path, content, told):
    path = tmp_path / "model.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(PyrasegError) as refused:
        load_model(nn.Linear(3, 2), path, settings=NONE, remedy=REMEDY)
    assert re.match(told, str(refused.value))
    assert "weights_only" not in str(refused.value)  # torch's text advises to run what is in the file


def test_what_does_not_fit_is_told(tmp_path):
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "model.pt")
    with pytest.raises(PyrasegError, match=r"\(size mismatch for weight: .*\[4, 3\].*\[2, 3\]\)\)\. Use"):
        load_model(nn.Linear(3, 2), tmp_path / "model.pt", settings=NONE, remedy=REMEDY)


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
    start_from(tmp_path / "model.pt", networks=[trained, average], settings=NONE)
    for started in (trained.state_dict(), average.state_dict()):
        assert all(torch.equal(started[name], value) for name, value in model.state_dict().items())
    start_from(None, networks=[trained], settings=NONE)
    assert all(torch.equal(trained.state_dict()[name], value) for name, value in model.state_dict().items())


def test_other_classes_get_a_new_classifier(tmp_path, caplog):
    model, other = network(classes=3), network(classes=2)
    save_atomically(model.state_dict(), tmp_path / "model.pt")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with caplog.at_level("INFO"):
        start_from(tmp_path / "model.pt", networks=[other], settings=NONE)
    for name, value in other.state_dict().items():
        source = before if ".classifier." in name else model.state_dict()
        assert torch.equal(value, source[name]), name
    assert "with a new classifier" in caplog.text


@pytest.mark.parametrize("options", [{"encoder": "resnet34"}, {"bottleneck": 16}, {"decoder": "fpn"}])
def test_a_model_of_another_network_is_no_start(tmp_path, options):
    save_atomically(network(**options).state_dict(), tmp_path / "model.pt")
    with pytest.raises(PyrasegError, match="is of another network"):
        start_from(tmp_path / "model.pt", networks=[network()], settings=NONE)


def test_a_start_that_is_no_model_is_told(tmp_path):
    with pytest.raises(PyrasegError, match=r"There is no trained model at .* Correct start_from"):
        start_from(tmp_path / "model.pt", networks=[network()], settings=NONE)
    (tmp_path / "model.pt").write_text("text")
    with pytest.raises(PyrasegError, match="is not a file of weights"):
        start_from(tmp_path / "model.pt", networks=[network()], settings=NONE)


# --- weights that are not finite ---

BAD = pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])


def spoilt(path: Path, value: float, dtype: torch.dtype = torch.float32) -> Path:
    weights = nn.Linear(3, 2).state_dict()
    weights["weight"][1, 2] = value
    torch.save({name: tensor.to(dtype) for name, tensor in weights.items()}, path)
    return path


@BAD
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_weights_that_are_not_finite_are_never_loaded(tmp_path, value, dtype):
    path = spoilt(tmp_path / "model.pt", value, dtype)
    told = r"model\.pt: 1 weights are NaN or infinite, in 1 of 2 tensors, first in 'weight'"
    for use in (
        lambda: load_model(nn.Linear(3, 2), path, settings=NONE, remedy=REMEDY),
        lambda: start_from(path, networks=[nn.Linear(3, 2)], settings=NONE),
        lambda: promote(path, tmp_path / "models" / "model.pt"),
        lambda: read_weights(path),
    ):
        with pytest.raises(PyrasegError, match=told):
            use()
    assert listed(tmp_path) == ["model.pt"]


@BAD
def test_weights_that_are_not_finite_are_never_saved(tmp_path, value):
    network = nn.Linear(3, 2)
    save_model(network.state_dict(), tmp_path / "model.pt", settings=NONE)
    before = (tmp_path / "model.pt").read_bytes()
    nn.init.constant_(network.bias, value)
    with pytest.raises(PyrasegError, match="2 weights are NaN or infinite, in 1 of 2 tensors, first in 'bias'"):
        save_model(network.state_dict(), tmp_path / "model.pt", settings=NONE)
    assert (tmp_path / "model.pt").read_bytes() == before


def test_statistics_that_are_not_finite_are_weights_too(tmp_path):
    network = nn.BatchNorm2d(4)
    network.running_var[2] = float("inf")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    with pytest.raises(PyrasegError, match="first in 'running_var'"):
        load_model(nn.BatchNorm2d(4), tmp_path / "model.pt", settings=NONE, remedy=REMEDY)


# --- settings ---

ORGANS = ModelSettings(
    {"class_names": ["background", "liver", "kidney"], "ResampleSlicesd.spacing": 2.5, "network.pool_sizes": [1, 3]},
    {"class_names": "class_names", "ResampleSlicesd.spacing": "spacing", "network.pool_sizes": "pool_sizes"},
)


def but(**values: object) -> ModelSettings:
    """Return these settings with other ones for some, by their options."""
    places = {option: name for name, option in ORGANS.options.items()}
    changed = {places[option]: value for option, value in values.items()}
    return dataclasses.replace(ORGANS, values={**ORGANS.values, **changed})


def test_a_file_with_settings_is_a_plain_state_dict(tmp_path):
    network = nn.BatchNorm2d(4)
    save_model(network.state_dict(), tmp_path / "model.pt", settings=ORGANS)
    plain = torch.load(tmp_path / "model.pt", weights_only=True)
    assert plain.keys() == network.state_dict().keys() and all(map(torch.is_tensor, plain.values()))
    nn.BatchNorm2d(4).load_state_dict(plain)
    weights, settings = read_model(tmp_path / "model.pt")
    assert settings == ORGANS.values
    assert weights._metadata[""] == network.state_dict()._metadata[""]  # PyTorch's own, such as the version


def test_settings_go_through_a_promotion_and_a_copy(tmp_path):
    save_model(nn.Linear(3, 2).state_dict(), tmp_path / "best.pt", settings=ORGANS)
    promote(tmp_path / "best.pt", tmp_path / "model.pt")
    assert read_model(tmp_path / "model.pt")[1] == ORGANS.values


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"class_names": ["background", "kidney", "liver"]},
            r'class_names: \["background", "liver", "kidney"\] in its training, \["background", "kidney", "liver"\] '
            "here"
            r"\nGive those of the training: --class_names '\[\"background\", \"liver\", \"kidney\"\]'",
        ),
        ({"spacing": 5}, r"spacing: 2.5 in its training, 5 here\nGive those of the training: --spacing '2.5'"),
        ({"pool_sizes": [3, 1]}, r"pool_sizes: \[1, 3\] in its training, \[3, 1\] here"),
    ],
)
def test_weights_of_other_settings_are_refused(tmp_path, values, told):
    save_model(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt", settings=ORGANS)
    with pytest.raises(PyrasegError, match=told) as refused:
        load_model(nn.Linear(3, 2), tmp_path / "model.pt", settings=but(**values), remedy=REMEDY)
    (name,) = values
    assert f"--may_differ '[\"{name}\"]'" in str(refused.value)


def test_what_cannot_differ_is_not_advised():
    """No --may_differ makes a network of three classes give two."""
    with pytest.raises(PyrasegError, match=r"needs a training: pyraseg train --start_from FILE\.$") as told:
        but(class_names=["background", "liver"]).require(ORGANS.values, "The model")
    assert "--may_differ" not in str(told.value)


def settings_of(*files: str) -> ModelSettings:
    return read_config([ROOT / "configs" / f"{file}.json" for file in files]).get_parsed_content("settings")


@pytest.mark.parametrize(("base", "overlay"), [("inference", "photographs_inference"), ("train", "photographs")])
def test_advice_on_weights_of_photographs_leads_out(base, overlay):
    """The overlay that the message names is all that is needed, and no option is advised that would be refused next."""
    volumes, photographs = settings_of(base), settings_of(base, overlay)
    with pytest.raises(PyrasegError, match=f"configs/{overlay}.json") as told:
        volumes.require(photographs.values, "The model")
    assert "--image_kind" not in str(told.value)
    projections = {**photographs.values, "image_kind": "projection"}
    with pytest.raises(PyrasegError, match=rf"configs/{overlay}.json.* Give also .*--image_kind 'projection'"):
        volumes.require(projections, "The model")
    with pytest.raises(PyrasegError, match="leave out the overlay of 2-D images"):
        photographs.require(volumes.values, "The model")


def test_advice_that_has_no_option_begins_without_a_blank():
    here = ModelSettings({"preprocessing": ["Windowd"]}, {})
    with pytest.raises(PyrasegError, match=r"here\nBring the config into the form of the training for preprocessing\."):
        here.require({"preprocessing": ["Windowd", "Resized"]}, "The model")


def test_advice_is_that_of_a_program_without_options():
    with pytest.raises(PyrasegError, match=r"5 here\nGive another\.$"):
        but(spacing=5).require(ORGANS.values, "The model", remedy="Give another.")


def test_a_difference_that_is_intended_is_told(tmp_path, caplog):
    save_model(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt", settings=ORGANS)
    both = but(spacing=5, pool_sizes=[2])
    with pytest.raises(PyrasegError, match=r"training: --pool_sizes '\[1, 3\]'\. If"):
        settings = dataclasses.replace(both, may_differ=["spacing"])
        load_model(nn.Linear(3, 2), tmp_path / "model.pt", settings=settings, remedy=REMEDY)
    settings = dataclasses.replace(both, may_differ=["spacing", "network.pool_sizes"])
    load_model(nn.Linear(3, 2), tmp_path / "model.pt", settings=settings, remedy=REMEDY)
    assert "spacing: 2.5 in its training, 5 here" in caplog.text
    settings = dataclasses.replace(both, may_differ=["spacng"])
    with pytest.raises(PyrasegError, match=r"'spacng', which is no setting. The nearest name is 'spacing'"):
        load_model(nn.Linear(3, 2), tmp_path / "model.pt", settings=settings, remedy=REMEDY)


def test_settings_are_compared_by_their_values(tmp_path):
    save_model(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt", settings=but(spacing=10))
    load_model(nn.Linear(3, 2), tmp_path / "model.pt", settings=but(spacing=10.0), remedy=REMEDY)


def test_weights_without_settings_are_told(tmp_path, caplog):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    load_model(nn.Linear(3, 2), tmp_path / "model.pt", settings=ORGANS, remedy=REMEDY)
    assert "model.pt does not say what it was trained with" in caplog.text
    assert 'class_names ["background", "liver", "kidney"]; spacing 2.5' in caplog.text


def test_other_classes_of_the_same_number_get_a_new_classifier(tmp_path, caplog):
    model, same, other = network(), network(), network()
    save_model(model.state_dict(), tmp_path / "model.pt", settings=ORGANS)
    start_from(tmp_path / "model.pt", networks=[same], settings=ORGANS)
    assert all(torch.equal(same.state_dict()[name], value) for name, value in model.state_dict().items())
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with caplog.at_level("INFO"):
        settings = but(class_names=["background", "kidney", "liver"], spacing=2.0)
        start_from(tmp_path / "model.pt", networks=[other], settings=settings)
    for name, value in other.state_dict().items():
        assert torch.equal(value, (before if ".classifier." in name else model.state_dict())[name]), name
    assert "with a new classifier" in caplog.text and "spacing: 2.5 in its training, 2.0 here" in caplog.text

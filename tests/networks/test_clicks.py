# SPDX-License-Identifier: Apache-2.0
"""A network that clicks correct: what does not change, and that both its halves are exported whole."""

import itertools

import numpy as np
import onnxruntime
import pytest
import torch

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.clicks import ClickNetwork, Look, click_network
from bundle.pyraseg.networks.deeplab import DeepLabV3Plus
from bundle.pyraseg.networks.pspnet import PSPNet
from bundle.pyraseg.networks.volume_pspnet import VolumePSPNet
from tests.helpers.network_tests import SIZES, TRACED, randomize_statistics

FORMS = {
    "plain": (PSPNet, {}),
    "fpn": (PSPNet, {"decoder": "fpn", "decoder_stride": 2, "output_stride": 32}),
    "deeplab": (DeepLabV3Plus, {}),
}
K = 3


def build(form: str = "fpn", **options) -> ClickNetwork:
    torch.manual_seed(0)
    make, own = FORMS[form]
    plain = make(in_channels=2, out_channels=K, encoder="resnet18", pretrained=False, bottleneck=16, **own)
    network = ClickNetwork(plain, width=8, **options).eval()
    randomize_statistics(network)
    with torch.no_grad():
        network.prompts.correction.weight.normal_()
    return network


def prompts_of(image: torch.Tensor) -> torch.Tensor:
    size = (image.shape[0], 4, *image.shape[2:])
    return torch.cat([(torch.rand(size) > 0.5).float(), torch.ones_like(image[:, :1])], dim=1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(33, 47), (64, 96), (65, 130)])
def test_without_a_prompt_the_answer_is_the_plain_one_bit_by_bit(form, size):
    network = build(form)
    image, classes = torch.randn(2, 2, *size), torch.tensor([1, 2])
    none = prompts_of(image)
    none[:, [0, 1, 2, 4]] = 0
    with torch.no_grad():
        logits = network.plain(image)
        assert network(image).equal(logits)
        assert network.look(image)[0].equal(logits)
        assert network(image, none, classes).equal(network.log_odds_of(logits, classes))
        clicked = network(image, prompts_of(image), classes)
        assert clicked.shape == (2, 1, *size) and not clicked.equal(network.log_odds_of(logits, classes))
        mixed = torch.stack([none[0], prompts_of(image)[1]])
        assert network(image, mixed, classes)[0].equal(network.log_odds_of(logits, classes)[0])


def test_log_odds_are_those_of_the_softmax_or_of_a_sigmoid():
    logits = torch.randn(2, K, 5, 7, dtype=torch.float64)
    classes = torch.tensor([2, 0])
    probability = logits.softmax(dim=1)[[0, 1], classes][:, None]
    torch.testing.assert_close(build().log_odds_of(logits, classes), probability.logit())
    assert build(overlapping=True).log_odds_of(logits, classes).equal(logits[[0, 1], classes][:, None])


def test_the_plain_part_stands_still_and_the_prompts_part_learns():
    network = build()
    before = {name: value.clone() for name, value in network.plain.state_dict().items()}
    assert network.part_names() == ["plain", "prompts"]
    network.learn_only(["prompts"])
    optimizer = torch.optim.AdamW(network.parameter_groups(), lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        network.train()
        assert not network.plain.encoder.training and network.prompts.training
        image = torch.randn(2, 2, 64, 64)
        network(image, prompts_of(image), torch.tensor([1, 1])).square().mean().backward()
        assert all(parameter.grad is not None for parameter in network.prompts.parameters())
        optimizer.step()
    assert all(value.equal(before[name]) for name, value in network.plain.state_dict().items())
    for part in ("plain", "plain.encoder"):
        with pytest.raises(PyrasegError, match="'plain' is a trained network and stays as it is"):
            network.learn_only([part, "prompts"])


def test_a_click_changes_most_where_it_is_and_something_everywhere():
    network = build().double()
    image, classes = torch.randn(1, 2, 320, 320, dtype=torch.float64), torch.tensor([1])
    one = torch.zeros(1, 5, 320, 320, dtype=torch.float64)
    one[:, 4] = 1
    two = one.clone()
    two[:, 0, :12, :12] = 1
    with torch.no_grad():
        changed = (network(image, one, classes) - network(image, two, classes)).abs()[0, 0]
    assert changed[:12, :12].mean() > 100 * changed.mean() and (changed[-12:, -12:] > 1e-13).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["fpn", "deeplab"])
def test_scripted_equals_eager(form):
    network = build(form)
    scripted = torch.jit.script(network)
    image, classes = torch.randn(1, 2, 70, 50), torch.tensor([2])
    prompts = prompts_of(image)
    with torch.no_grad():
        torch.testing.assert_close(scripted(image, prompts, classes), network(image, prompts, classes))
        torch.testing.assert_close(scripted(image), network(image))


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_both_halves_in_onnx_hold_at_other_sizes(dynamo, tmp_path):
    network = build()
    image = torch.randn(2, 2, *TRACED)
    prompts, classes = prompts_of(image), torch.tensor([1, 2])
    with torch.no_grad():
        logits, fine, coarse = network.look(image)
        log_odds = network.log_odds_of(logits, classes)
    names, shapes = ["log_odds", "fine", "coarse", "prompts"], {0: "batch", 2: "width", 3: "height"}
    quarter, deep = ({0: "batch", 2: f"{name}_width", 3: f"{name}_height"} for name in ("fine", "coarse"))
    axes = {"image": shapes, "log_odds": shapes, "fine": quarter, "coarse": deep, "prompts": shapes}

    def export(part: torch.nn.Module, example: tuple, file: str, inputs: list[str], outputs: list[str]) -> None:
        options = {"input_names": inputs, "output_names": outputs, "opset_version": 18, "verbose": False}
        known = {name: axes.get(name, shapes) for name in (*inputs, *outputs)}
        free = tuple(dict.fromkeys(axes[name], torch.export.Dim.AUTO) for name in inputs)
        dynamic = {"dynamic_shapes": free} if dynamo else {"dynamic_axes": known}
        torch.onnx.export(part.eval(), example, tmp_path / file, dynamo=dynamo, **options, **dynamic)

    export(Look(network), (image,), "look.onnx", ["image"], ["logits", "fine", "coarse"])
    export(network.prompts, (log_odds, fine, coarse, prompts), "refine.onnx", names, ["corrected"])
    look, refine = (
        onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("look", "refine")
    )
    for count, size in zip(itertools.cycle((1, 3)), SIZES, strict=False):
        image = torch.randn(count, 2, *size)
        prompts = prompts_of(image)
        classes = torch.arange(count) % K
        prompts[-1, 4] = 0
        with torch.no_grad():
            expected = network(image, prompts, classes)
            features = look.run(None, {"image": image.numpy()})
            log_odds = network.log_odds_of(torch.from_numpy(features[0]), classes).numpy()
        found = refine.run(None, dict(zip(names, [log_odds, *features[1:], prompts.numpy()], strict=True)))[0]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4 * float(expected.abs().max()))
        np.testing.assert_array_equal(found[-1], log_odds[-1])


def test_only_networks_for_images_are_corrected():
    with pytest.raises(PyrasegError, match="in 2-D, not VolumePSPNet"):
        ClickNetwork(VolumePSPNet(in_channels=1, out_channels=2, patch_size=[32, 32, 32], spacing=[1, 1, 1]))
    volumes = PSPNet(spatial_dims=3, in_channels=1, encoder="resnet50", pretrained=False)
    with pytest.raises(PyrasegError, match="in 2-D, not PSPNet"):
        ClickNetwork(volumes)
    with pytest.raises(PyrasegError, match=r"not 'PSPnet'\. The nearest name is 'PSPNet'"):
        click_network(plain="PSPnet")

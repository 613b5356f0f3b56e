# SPDX-License-Identifier: Apache-2.0
"""Simulated users train the part that sees prompts, the trained network stays, and what is validated was clicked."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from bundle.pyraseg.core import ModelSettings, Structures
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks import DeepSupervisionLoss, DiceFocalLoss, PSPNet, click_network, shrink
from bundle.pyraseg.training import clicks as module
from bundle.pyraseg.training import read_model, save_model, take_over
from bundle.pyraseg.training.clicks import (
    ClickBatch,
    ClickedInferer,
    ClickingInferer,
    load_plain,
    prepare_with_truth,
    read_click_network,
    sloppy_box,
)
from bundle.pyraseg.transforms import UNKNOWN
from scripts.include_model import shrink_clicks

PLAIN = {"encoder": "tf_efficientnet_lite0", "output_stride": 16, "decoder": "fpn", "bottleneck": 16}
NAMES = ["background", "liver", "spleen"]


def settings(network: str = "PSPNet", **values) -> ModelSettings:
    options = {f"network.{key}": value for key, value in {**PLAIN, **values}.items()}
    return ModelSettings({"class_names": NAMES, "network": network, **options}, {"class_names": "class_names"})


def trained(path, **values) -> PSPNet:
    torch.manual_seed(3)
    network = PSPNet(in_channels=1, out_channels=3, pretrained=False, **{**PLAIN, **values}).eval()
    save_model(network.state_dict(), path, settings=settings(**values))
    return network


def clicked(**options):
    torch.manual_seed(4)
    return click_network(in_channels=1, out_channels=3, pretrained=False, width=8, **PLAIN, **options)


def of_clicks(**values) -> ModelSettings:
    return settings("click_network", plain="PSPNet", width=8, overlapping=False, **values)


def blobs(count: int) -> torch.Tensor:
    label = torch.zeros(count, 1, 64, 64, dtype=torch.uint8)
    label[:, :, 10:30, 12:40] = 1
    label[:, :, 40:60, 20:50] = 2
    label[:, :, :4] = UNKNOWN
    return label


def test_the_plain_network_is_taken_over_bit_by_bit(tmp_path):
    plain = trained(tmp_path / "plain.pt")
    network = clicked()
    take_over(load_plain(tmp_path / "plain.pt", settings=of_clicks(), device="cpu"), networks=[network])
    for name, value in plain.state_dict().items():
        assert torch.equal(network.plain.state_dict()[name], value)


def test_a_plain_network_of_other_settings_is_refused(tmp_path):
    with pytest.raises(PyrasegError, match="give its weights with --click_from"):
        load_plain(None, settings=of_clicks(), device="cpu")
    trained(tmp_path / "plain.pt", bottleneck=32)
    with pytest.raises(PyrasegError, match=r"network\.bottleneck: 32 in its training, 16 here"):
        load_plain(tmp_path / "plain.pt", settings=of_clicks(), device="cpu")
    torch.save(clicked().state_dict(), tmp_path / "nameless.pt")
    with pytest.raises(PyrasegError, match="does not say what it was trained with"):
        load_plain(tmp_path / "nameless.pt", settings=of_clicks(), device="cpu")


@pytest.mark.slow
def test_a_click_network_is_read_from_its_file_alone(tmp_path):
    network = clicked()
    save_model(network.state_dict(), tmp_path / "click.pt", settings=of_clicks())
    found, about = read_click_network(tmp_path / "click.pt")
    assert not found.training and about["network.width"] == 8
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in network.state_dict().items())
    trained(tmp_path / "plain.pt")
    with pytest.raises(PyrasegError, match="holds no network that clicks correct"):
        read_click_network(tmp_path / "plain.pt")


def test_a_small_file_has_the_plain_network_bit_by_bit(tmp_path):
    trained(tmp_path / "whole.pt")
    save_model(shrink(read_model(tmp_path / "whole.pt")[0]), tmp_path / "plain.pt", settings=settings())
    network = clicked()
    take_over(load_plain(tmp_path / "plain.pt", settings=of_clicks(), device="cpu"), networks=[network])
    small = shrink_clicks(network.state_dict(), tmp_path / "plain.pt")
    save_model(small, tmp_path / "click.pt", settings=of_clicks())
    found = read_click_network(tmp_path / "click.pt")[0].state_dict()
    for name, value in network.state_dict().items():
        assert found[name].equal(value.half().float() if name.startswith("prompts.") and value.ndim else value)
    with pytest.raises(PyrasegError, match=r"The clicks were not trained for .*whole\.pt: .* differs"):
        shrink_clicks(network.state_dict(), tmp_path / "whole.pt")


def test_each_sample_has_a_class_that_it_shows_and_was_annotated_for():
    label = blobs(4)
    label[0][label[0] == 2] = 0  # liver alone
    label[1][label[1] > 0] = 0  # nothing
    annotated = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]], dtype=torch.bool)
    batch = {"image": torch.zeros(4, 1, 64, 64), "label": label, "annotated": annotated}
    prepare = ClickBatch(Compose([]), loss=DiceFocalLoss(sigmoid=True), class_names=NAMES)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        _, truth, (classes, same), _ = prepare(batch)
        assert truth is same and truth.shape == (4, 1, 64, 64)
        expected = (label == classes.reshape(-1, 1, 1, 1)).to(torch.uint8).masked_fill(label == UNKNOWN, UNKNOWN)
        assert truth.equal(expected)
        assert classes[:3].tolist() == [1, 2, 2]
        seen.add(int(classes[3]))
    assert seen == {1, 2}


def test_the_class_of_regions_is_a_channel():
    regions = {"both": ["liver", "spleen"], "spleen": ["spleen"]}
    batch = {"image": torch.zeros(2, 1, 64, 64), "label": blobs(2)}
    prepare = ClickBatch(Compose([]), loss=DiceFocalLoss(sigmoid=True), class_names=NAMES, regions=regions)
    for seed in range(5):
        torch.manual_seed(seed)
        _, truth, (classes, _), _ = prepare(batch)
        for number in range(2):
            members = [1, 2] if classes[number] == 0 else [2]
            assert (truth[number] == 1).equal(torch.isin(batch["label"][number], torch.tensor(members)))


def steps(count: int = 2, **options):
    network, inferer = clicked(), ClickingInferer(rounds=4, box_fraction=0.5, cpu_kernels="float32", **options)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss = DeepSupervisionLoss(DiceFocalLoss(sigmoid=True, ignore_index=UNKNOWN), weights=[1, 1])
    network.learn_only(["prompts"])
    optimizer = torch.optim.AdamW(network.parameter_groups(), lr=1e-2)
    torch.manual_seed(0)
    truth = (blobs(4) == 1).to(torch.uint8)
    losses = []
    for _ in range(count):
        network.train()
        optimizer.zero_grad(set_to_none=True)
        answers = inferer(torch.randn(4, 1, 64, 64), network, torch.tensor([1, 1, 1, 1]), truth)
        assert 1 <= len(answers) <= 2
        value = loss(answers, truth)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return network, before, losses


def test_users_train_the_prompts_part_alone_and_the_same_way_each_time():
    network, before, losses = steps()
    assert all(value.equal(before[f"plain.{name}"]) for name, value in network.plain.state_dict().items())
    assert not any(value.equal(before[f"prompts.{name}"]) for name, value in network.prompts.named_parameters())
    again, _, same = steps()
    assert losses == same
    assert all(value.equal(again.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.slow
def test_it_learns_to_follow_clicks():
    """On images of noise the truth can be told from clicks and boxes alone."""
    _, _, losses = steps(24, jitter=0)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_a_network_without_prompts_is_refused():
    with pytest.raises(PyrasegError, match="Clicks train a ClickNetwork in one process, uncompiled, not PSPNet"):
        ClickingInferer()(torch.zeros(1, 1, 64, 64), PSPNet(in_channels=1, pretrained=False))


def test_a_sloppy_box_misses_by_a_tenth_of_its_sides():
    inside = np.zeros((50, 60), bool)
    inside[10:30, 20:51] = True
    boxes = np.array([sloppy_box(inside, np.random.default_rng(seed)) for seed in range(50)])
    off = np.abs(boxes - [10, 20, 29, 50])
    assert (off <= [2, 3.1, 2, 3.1]).all() and (off.max(axis=0) > [1.5, 2.5, 1.5, 2.5]).all()


def test_what_is_validated_was_clicked():
    network, label, image = clicked().eval(), blobs(2), torch.randn(2, 1, 64, 64)
    torch.nn.init.normal_(network.prompts.correction.weight)
    with torch.inference_mode():
        plain = network(image)
        none = ClickedInferer(clicks=0, class_names=NAMES)
        assert none(image, network, truth=label).equal(plain)
        two = ClickedInferer(clicks=2, class_names=NAMES)
        assert two(image, network).equal(plain)  # nobody knows where to click
        found = two(image, network, truth=label)
        assert found.shape == plain.shape and not found.equal(plain)
        assert two(image, network, truth=label).equal(found)
        slices = two(image.movedim(0, 3)[None], network, truth=label.movedim(0, 3)[None])
        torch.testing.assert_close(slices[0].movedim(3, 0), found, rtol=1e-4, atol=1e-4)
        inputs, target, args, kwargs = prepare_with_truth({"image": image, "label": label})
        assert inputs.equal(image) and target is kwargs["truth"] and args == ()


@pytest.mark.parametrize("overlapping", [False, True])
def test_corrected_log_odds_become_logits_and_the_others_stay(overlapping):
    network = clicked(overlapping=overlapping).double()
    logits, odds = torch.randn(2, 3, 8, 8).double(), torch.randn(2, 1, 8, 8).double()
    classes = torch.tensor([1, 2])
    found = network.with_log_odds(logits, classes, odds)
    torch.testing.assert_close(network.log_odds_of(found, classes), odds)
    assert found[0, [0, 2]].equal(logits[0, [0, 2]]) and found[1, :2].equal(logits[1, :2])
    torch.testing.assert_close(network.with_log_odds(logits, classes, network.log_odds_of(logits, classes)), logits)


def test_class_masks_are_those_of_the_label():
    label = blobs(1)
    masks = module.class_masks(label, Structures(NAMES))
    assert [int((masks[0, k] == 1).sum()) for k in range(2)] == [20 * 28, 20 * 30]
    assert (masks == UNKNOWN).all(dim=1, keepdim=True).equal(label == UNKNOWN)

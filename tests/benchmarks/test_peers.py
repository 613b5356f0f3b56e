# SPDX-License-Identifier: Apache-2.0
"""Networks of segmentation_models.pytorch beside ours: same weights, same freezing, and how its users train one."""

import pytest
import torch

from benchmarks.dermoscopy.networks import NETWORKS
from benchmarks.peers import PeerNetwork, UsersLoss, UsersNetwork, count_parameters, smp, users_normalization
from benchmarks.tasks.networks import FIRST_RATE, OURS, PEERS, USERS, VOLUME_PEERS, networks_of
from benchmarks.tasks.study import config_of, shortened
from benchmarks.trials import require_same
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.encoders import build_encoder, expected_normalization
from bundle.pyraseg.training.stages import StagePlan

ENCODER = "tf_efficientnet_lite0"


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("smp")])
def test_a_peer_starts_from_the_weights_of_ours(name):
    options = {key: NETWORKS[name]["network_def"][key] for key in ("architecture", "encoder_depth", "upsampling")
               if key in NETWORKS[name]["network_def"]}  # fmt: skip
    peer = PeerNetwork(encoder=ENCODER, **options).eval()
    stride = peer.encoder.model.feature_info.reduction()[-1] if "DeepLab" not in name else 16
    ours = build_encoder(ENCODER, output_stride=max(16, stride)).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        theirs = peer.encoder(image)[-1]
        same = next(each for each in ours(image) if each.shape == theirs.shape)
        torch.testing.assert_close(theirs, same, rtol=1e-4, atol=1e-4)
        assert peer(image).shape == (1, 2, 64, 96)


def test_a_peer_freezes_as_ours_does():
    peer = PeerNetwork("Unet", encoder=ENCODER, pretrained=False)
    assert peer.part_names() == ["encoder", "pyramid", "head"]
    assert [group["name"] for group in peer.parameter_groups()] == ["encoder", "pyramid", "head"]
    peer.learn_only(["pyramid", "head"])
    before = {name: value.clone() for name, value in peer.encoder.state_dict().items()}
    peer.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in peer.encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in peer.encoder.parameters())
    assert all(parameter.grad is not None for parameter in peer.pyramid.parameters())


def test_stages_that_nothing_runs_are_no_parameters():
    cut = PeerNetwork("PSPNet", encoder=ENCODER, pretrained=False)
    whole = PeerNetwork("PSPNet", encoder=ENCODER, pretrained=False, encoder_depth=5, upsampling=32)
    image = torch.zeros(2, 3, 64, 64)
    assert count_parameters(whole, image) == sum(parameter.numel() for parameter in whole.parameters())
    blocks = cut.encoder.model.blocks
    unused = sum(parameter.numel() for block in blocks[3:] for parameter in block.parameters())
    assert count_parameters(cut, image) == sum(parameter.numel() for parameter in cut.parameters()) - unused


def test_a_peer_takes_gray_images_of_any_size_and_another_encoder():
    peer = PeerNetwork("FPN", encoder="tf_efficientnet_lite2", in_channels=1, out_channels=3).eval()
    image = torch.randn(1, 1, 70, 96)
    padded = torch.cat([image, image[:, :, -1:].expand(-1, -1, 26, -1)], dim=2)
    with torch.no_grad():
        logits = peer(image)
        torch.testing.assert_close(logits, peer(padded)[:, :, :70])
        colors = PeerNetwork("FPN", encoder="tf_efficientnet_lite2", out_channels=3).eval()
        ours = build_encoder("tf_efficientnet_lite2").eval()(image.expand(-1, 3, -1, -1)[..., :64, :])[0]
        torch.testing.assert_close(
            colors.encoder(image.expand(-1, 3, -1, -1)[..., :64, :])[2], ours, rtol=1e-4, atol=1e-4
        )
    assert logits.shape == (1, 3, 70, 96)


def test_the_one_channel_of_a_foreground_is_a_sigmoid_under_a_softmax():
    torch.manual_seed(0)
    network = UsersNetwork("Unet", encoder=ENCODER, pretrained=False).eval()
    assert network.head[0].out_channels == 1
    with torch.no_grad():
        logits = network(torch.randn(2, 3, 64, 64))
        alone = PeerNetwork.forward(network, torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 2, 64, 64) and alone.shape == (2, 1, 64, 64)
    torch.testing.assert_close(logits.softmax(1)[:, 1], logits[:, 1].sigmoid())


def test_the_loss_of_users_is_that_of_their_library():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8)).float()
    of_three = smp.losses.DiceLoss("multiclass")(logits, target.long())
    assert UsersLoss()(logits, target) == of_three
    z, foreground = logits[:, :1], (target > 0).float()
    of_one = smp.losses.DiceLoss("binary")(z, foreground)
    torch.testing.assert_close(UsersLoss()(torch.cat([torch.zeros_like(z), z], 1), foreground), of_one)
    assert of_one != of_three


def test_the_library_normalizes_as_the_weights_of_our_encoder_were_trained():
    assert users_normalization(ENCODER) == expected_normalization(ENCODER) == {"mean": [0.5] * 3, "std": [0.5] * 3}


def test_peers_of_a_task_differ_from_it_in_the_network_alone():
    found = networks_of(config_of("dermoscopy"))
    assert list(found) == [OURS, *PEERS, USERS] and found[OURS] == {}
    for name in PEERS:
        assert all(value is None for key, value in found[name].items() if key != "network_def"), name
    assert list(networks_of(config_of("hippocampus"))) == [OURS, *VOLUME_PEERS]


def test_as_users_train_it_is_one_rate_flips_and_no_stage():
    changed = networks_of(config_of("dermoscopy"))[USERS]
    plan = StagePlan(changed["plan#stages"])
    first, last = (plan.learning_rates(epoch, 100, done=done)["encoder"] for epoch, done in ((1, 0.0), (100, 1.0)))
    assert first == pytest.approx(FIRST_RATE) and last == pytest.approx(1e-5)
    kinds = [each["_target_"] for each in changed["train#augmentation#transforms"]]
    assert kinds == ["RandFlipd", "RandFlipd", "EnsureTyped"]
    assert changed["optimizer"]["_target_"] == "torch.optim.Adam" and changed["weight_decay"] is None


def test_a_share_of_the_samples_is_left():
    config = {"epochs": 12, "samples_per_epoch": 1000, "val_interval": 4}
    for share in (0.5, 0.25, 0.1, 0.03):
        changed = shortened(config, share)
        assert changed["epochs"] * changed["samples_per_epoch"] == pytest.approx(12_000 * share, abs=changed["epochs"])
        assert changed["val_interval"] <= changed["epochs"]
    assert shortened(config, 1) == {}
    for share in (0, -1, 1.5):
        with pytest.raises(PyrasegError, match="above 0 and at most 1"):
            shortened(config, share)


def test_a_finished_training_of_other_knobs_is_no_other_trainings_result(tmp_path, caplog):
    record = {"config_hash": "another", "knobs": {"epochs": 2, "gone": 1}}
    require_same(record, {"epochs": 2, "new": {"_target_": "x"}}, tmp_path)
    assert "differs elsewhere" in caplog.text
    with pytest.raises(PyrasegError, match=r"other settings \(epochs\)"):
        require_same(record, {"epochs": 3}, tmp_path)
    with pytest.raises(PyrasegError, match="other settings"):
        require_same({"config_hash": "another"}, {"epochs": 2}, tmp_path)

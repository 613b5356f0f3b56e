# SPDX-License-Identifier: Apache-2.0
"""MONAI's networks under our part names compute what MONAI's own classes do."""

import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet

from benchmarks.hippocampus.networks import DynUNetPeer, SegResNetPeer
from bundle.pyraseg.core.errors import PyrasegError

STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 1], [2, 2, 2]]
PATCH = (1, 2, 16, 24, 16)


def dyn_unet() -> DynUNet:
    torch.manual_seed(0)
    return DynUNet(
        spatial_dims=3, in_channels=2, out_channels=3, kernel_size=[3] * 4, strides=STRIDES, filters=[4, 8, 8, 16],
        upsample_kernel_size=STRIDES[1:], deep_supervision=True, deep_supr_num=2, res_block=True,
    )  # fmt: skip


def peer_of_dyn_unet() -> DynUNetPeer:
    torch.manual_seed(0)
    return DynUNetPeer(in_channels=2, out_channels=3, strides=STRIDES, filters=[4, 8, 8, 16])


def test_dyn_unet_is_monai_s():
    theirs, peer = dyn_unet(), peer_of_dyn_unet()
    image = torch.randn(PATCH)
    with torch.no_grad():
        torch.testing.assert_close(peer.eval()(image), theirs.eval()(image))
        found, stacked = peer.train()(image), theirs.train()(image)
    assert [tuple(level.shape[2:]) for level in found] == [(16, 24, 16), (8, 12, 8), (4, 6, 8)]
    for level, expected in zip(found, stacked.unbind(dim=1), strict=True):
        enlarged = torch.nn.functional.interpolate(level, size=expected.shape[2:])
        torch.testing.assert_close(enlarged, expected)


def test_segresnet_is_monai_s():
    torch.manual_seed(0)
    theirs = SegResNet(in_channels=2, out_channels=3, init_filters=8, dropout_prob=0.2)
    torch.manual_seed(0)
    peer = SegResNetPeer(in_channels=2, out_channels=3, init_filters=8)
    image = torch.randn(PATCH)
    with torch.no_grad():
        torch.testing.assert_close(peer.eval()(image), theirs.eval()(image))
        torch.manual_seed(1)
        expected = theirs.train()(image)
        torch.manual_seed(1)
        torch.testing.assert_close(peer.train()(image), expected)


@pytest.mark.parametrize("peer", [DynUNetPeer, SegResNetPeer])
def test_parts_learn_and_stand_still(peer):
    network = peer(in_channels=1, out_channels=2)
    assert network.part_names() == ["encoder", "pyramid", "head"]
    network.learn_only(["pyramid", "head"])
    found = network.train()(torch.randn(1, 1, 16, 16, 16))
    sum(level.sum() for level in (found if isinstance(found, list) else [found])).backward()
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    parts = (*network.pyramid.parameters(), *network.head.parameters())
    assert all(parameter.grad is not None for parameter in parts)


@pytest.mark.parametrize("peer", [DynUNetPeer, SegResNetPeer])
def test_any_size_is_that_of_the_padded_image_cut_back(peer):
    network = peer(in_channels=1, out_channels=2).eval()
    image = torch.randn(1, 1, 17, 16, 21)
    padded = torch.nn.functional.pad(image, (0, 3, 0, 0, 0, 7), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(padded)[..., :17, :16, :21])


def test_deep_supervision_wants_whole_multiples():
    with pytest.raises(PyrasegError, match="no multiples of 8"):
        peer_of_dyn_unet().train()(torch.randn(1, 2, 12, 16, 16))

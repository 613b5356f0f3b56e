# SPDX-License-Identifier: Apache-2.0
"""What is PSPNet's and DeepLabV3+'s own: skips, depth, the auxiliary head, and content that stays where it is."""

import pytest
import torch
from monai.losses import DeepSupervisionLoss

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.deeplab import DeepLabV3Plus
from bundle.pyraseg.networks.losses import DiceFocalLoss
from bundle.pyraseg.networks.pspnet import PSPNet

HEADS = {"plain": (PSPNet, {}), "fpn": (PSPNet, {"decoder": "fpn"}), "deeplab": (DeepLabV3Plus, {})}


def build(head: str, **options):
    network_class, own = HEADS[head]
    return network_class(**{"encoder": "resnet18", "pretrained": False, "bottleneck": 16} | own | options)


def test_options_are_refused():
    with pytest.raises(PyrasegError, match="'plain' and 'fpn'"):
        PSPNet(decoder="unet")
    with pytest.raises(PyrasegError, match="`decoder_stride` is 1, 2, 4, 8 or 16, not 3"):
        PSPNet(decoder="fpn", decoder_stride=3)
    with pytest.raises(PyrasegError, match="2 or 3, not 4"):
        PSPNet(spatial_dims=4)
    with pytest.raises(PyrasegError, match="Raise `depth`"):
        build("deeplab", depth=1)
    with pytest.raises(PyrasegError, match="raise `depth`"):
        build("plain", depth=1, auxiliary=True)


@pytest.mark.parametrize(
    ("head", "options", "size"),
    [
        ("plain", {}, 4),
        ("plain", {"output_stride": 8}, 8),
        ("plain", {"depth": 2}, 8),
        ("fpn", {}, 16),
        ("fpn", {"output_stride": 32}, 16),
        ("fpn", {"output_stride": 32, "decoder_stride": 8}, 8),
        ("fpn", {"decoder_stride": 8}, 8),
        ("fpn", {"output_stride": 32, "decoder_stride": 16}, 4),
        ("deeplab", {}, 16),
        ("deeplab", {"output_stride": 8}, 16),
    ],
)
def test_the_classifier_sees_the_map_of_its_stride(head, options, size):
    network = build(head, **options).eval()
    seen = []
    network.head.classifier.register_forward_hook(lambda module, args, output: seen.append(output.shape[-2:]))
    network(torch.randn(1, 3, 64, 64))
    assert seen == [(size, size)]


def test_dilations_see_the_same_share_of_the_image_at_every_stride():
    for stride, rates in [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))]:
        pyramid = build("deeplab", output_stride=stride).pyramid
        assert tuple(branch[0].dilation[0] for branch in pyramid.branches[1:]) == rates
    assert [branch[0].dilation[0] for branch in build("deeplab", atrous_rates=(2, 4)).pyramid.branches] == [1, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_an_auxiliary_head_has_a_say_in_training_only(head):
    network = build(head, auxiliary=True, output_stride=16)
    assert network.part_names()[0] == "encoder" and "auxiliary" in network.part_names()
    image, label = torch.randn(2, 3, 50, 70), torch.randint(0, 2, (2, 1, 50, 70))
    network.train()
    outputs = network(image)
    assert [tuple(output.shape) for output in outputs] == [(2, 2, 50, 70)] * 2
    loss = DiceFocalLoss()
    weighted = DeepSupervisionLoss(loss, weights=[1.0, 0.4])
    torch.testing.assert_close(weighted(outputs, label), loss(outputs[0], label) + 0.4 * loss(outputs[1], label))
    weighted(outputs, label).backward()
    assert all(parameter.grad is not None for parameter in network.auxiliary.parameters())
    network.eval()
    with torch.no_grad():
        logits = network(image)
        assert logits.shape == (2, 2, 50, 70)
        torch.testing.assert_close(weighted(logits, label), loss(logits, label))
        torch.testing.assert_close(torch.jit.script(network)(image), logits)


def test_the_auxiliary_head_reads_the_last_but_one_stage():
    network = build("plain", auxiliary=True)
    _, auxiliary = network.train()(torch.randn(2, 3, 64, 64))
    auxiliary.sum().backward()
    assert all(parameter.grad is not None for parameter in network.encoder.stages[2].parameters())
    assert all(parameter.grad is None for parameter in network.encoder.stages[3].parameters())


@pytest.mark.parametrize("head", HEADS)
def test_dropout_works_in_training_only(head):
    network = build(head, dropout=0.5, norm=("group", {"num_groups": 4}))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        network.eval()
        assert torch.equal(network(image), network(image))
        network.train()
        assert not torch.equal(network(image), network(image))


@pytest.mark.parametrize("head", HEADS)
def test_content_stays_where_it_is_at_any_size(head):
    """Cutting rows and columns off the right and the bottom moves nothing: strides see the same grid."""
    own = {"pool_sizes": (1,)} if head != "deeplab" else {"atrous_rates": (1, 2)}
    network = build(head, encoder="tf_efficientnet_lite0", pretrained=True, **own).eval()
    average = network.pyramid.pooled if head == "deeplab" else network.pyramid.branches[0]
    average[0].weight.data.zero_()  # the global average sees what is cut off, wherever it is
    image = torch.zeros(1, 3, 192, 192)
    image[..., 40:70, 50:80] = 1.0
    with torch.no_grad():
        whole = network(image)
        for height, width in [(191, 189), (177, 163), (161, 192)]:
            cut = network(image[..., :height, :width])
            difference = (cut - whole[..., :height, :width])[..., :100, :100].abs().max()
            assert difference < 1e-3 * whole.std()

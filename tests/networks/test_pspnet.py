# SPDX-License-Identifier: Apache-2.0
"""PSPNet runs at any size, scripts, and keeps frozen parts still."""

import pytest
import torch

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.networks.pspnet import PSPNet


@pytest.fixture(scope="module", params=["plain", "fpn"])
def network(request):
    return PSPNet(out_channels=5, pretrained=False, bottleneck=32, decoder=request.param)


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (160, 113)])
def test_logits_have_the_size_of_the_image(network, size):
    assert network.eval()(torch.randn(1, 3, *size)).shape == (1, 5, *size)


def test_scripted_equals_eager(network):
    scripted = torch.jit.script(network.eval())
    image = torch.randn(2, 3, 70, 91)
    torch.testing.assert_close(scripted(image), network(image))


def test_frozen_parts_keep_parameters_and_statistics(network):
    network.learn_only(["pyramid", "head"])
    optimizer = torch.optim.AdamW(network.parameter_groups(), lr=0.1, weight_decay=0.1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for _ in range(2):
        network.train()  # as a trainer does in every iteration
        optimizer.zero_grad(set_to_none=True)
        network(torch.randn(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()
    changed = {name.partition(".")[0] for name, value in network.state_dict().items() if not value.equal(before[name])}
    assert changed == {"pyramid", "head"}
    network.learn_only(network.part_names())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.train().encoder.training


def test_every_parameter_is_in_exactly_one_group(network):
    grouped = [id(p) for group in network.parameter_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())


def test_an_unknown_part_is_named(network):
    with pytest.raises(PyrasegError, match=r"no part decoder.*encoder.*pyramid.*head"):
        network.learn_only(["decoder"])


def test_an_unknown_decoder_is_refused():
    with pytest.raises(PyrasegError, match="'plain' and 'fpn'"):
        PSPNet(decoder="unet")


def test_skips_see_detail_that_the_plain_head_cannot():
    """The finest map that reaches the classifier has stride 4, against the pyramid's 16."""
    image = torch.randn(1, 3, 64, 64)
    for decoder, size in (("plain", 4), ("fpn", 16)):
        network = PSPNet(pretrained=False, bottleneck=16, decoder=decoder).eval()
        seen = []
        network.head.classifier.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output.shape))
        network(image)
        assert seen[0][-2:] == (size, size)


@pytest.mark.parametrize("decoder", ["plain", "fpn"])
def test_content_stays_where_it_is_at_any_size(decoder):
    """Cutting rows and columns off the right and the bottom moves nothing: strides see the same grid."""
    network = PSPNet(bottleneck=16, decoder=decoder, pool_sizes=(1,)).eval()
    network.pyramid.branches[0][0].weight.data.zero_()  # the global average sees what is cut off, wherever it is
    image = torch.zeros(1, 3, 192, 192)
    image[..., 40:70, 50:80] = 1.0
    with torch.no_grad():
        whole = network(image)
        for height, width in [(191, 189), (177, 163), (161, 192)]:
            cut = network(image[..., :height, :width])
            difference = (cut - whole[..., :height, :width])[..., :100, :100].abs().max()
            assert difference < 1e-3 * whole.std()

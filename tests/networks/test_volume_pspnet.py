# SPDX-License-Identifier: Apache-2.0
"""The network for volumes: sizes, kernels that follow the voxels, parts, deep supervision, exports."""

import numpy as np
import pytest
import torch
from torch import nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.networks import FastInstanceNorm, VolumePSPNet, plan_stages
from bundle.pyraseg.runtime import open_session
from bundle.pyraseg.training import TrainingInferer


def small(**options):
    torch.manual_seed(0)
    return VolumePSPNet(**{"in_channels": 2, "out_channels": 3, "channels": [4, 8, 16], **options})


def test_plans_are_those_that_nnunet_publishes():
    """Of the hippocampus (1 mm, 40 x 56 x 40: three halvings along each axis) and the prostate (0.62 x 0.62 x 3.6 mm,
    320 x 256 x 20: two in the plane alone first), as in the supplement of Isensee et al., 2021.
    """
    hippocampus = plan_stages([1, 1, 1], count=4, patch_size=[40, 56, 40])
    assert [stage.stride for stage in hippocampus] == [(1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert plan_stages([1, 1, 1], count=5, patch_size=[40, 56, 40])[-1].stride == (1, 1, 1)
    prostate = plan_stages([0.62, 0.62, 3.6], count=7, patch_size=[320, 256, 20])
    assert [stage.stride for stage in prostate[:3]] == [(1, 1, 1), (2, 2, 1), (2, 2, 1)]
    assert [stage.kernel for stage in prostate[:2]] == [(3, 3, 1), (3, 3, 1)]
    assert np.prod([stage.stride for stage in prostate], axis=0).tolist() == [64, 64, 4]


@pytest.mark.parametrize("size", [(21, 18, 7), (32, 32, 32), (8, 9, 10)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (5, 1, 1), (0.8, 0.8, 5)])
def test_logits_have_the_size_of_the_volume(size, spacing):
    with torch.no_grad():
        assert small(spacing=spacing).eval()(torch.randn(1, 2, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_are_not_mixed_before_voxels_are_as_long_in_the_plane(axis):
    """With slices six times as thick, the first two maps of a slice know nothing of its neighbors."""
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 6.0
    network = small(spacing=spacing, norm=("batch", {})).eval()
    image = torch.randn(1, 2, 16, 16, 16)
    changed = image.clone()
    changed.select(axis + 2, 8).add_(1.0)
    with torch.no_grad():
        before, after = network.encoder(image), network.encoder(changed)
    for one, other in zip(before[:2], after[:2], strict=True):
        others = (one - other).abs().transpose(2, axis + 2).amax(dim=(0, 1, 3, 4))
        assert [index for index, far in enumerate(others) if far > 0] == [8]
    assert (before[2] != after[2]).any()


def test_the_encoders_of_monai_reach_full_resolution_through_maps_of_the_image():
    network = VolumePSPNet(in_channels=1, out_channels=2, encoder="efficientnet_b0")
    assert network.part_names() == ["encoder", "detail", "pyramid", "head"]
    finest, *others = network(torch.randn(1, 1, 32, 48, 32))
    assert finest.shape == (1, 2, 32, 48, 32)
    assert [tuple(each.shape[2:]) for each in others] == [(16, 24, 16), (8, 12, 8)]


def test_deep_supervision_is_for_training_alone():
    network = small()
    image = torch.randn(2, 2, 16, 16, 16)
    assert [tuple(each.shape[2:]) for each in network(image)] == [(16, 16, 16), (8, 8, 8)]
    assert isinstance(network.eval()(image), torch.Tensor)
    assert isinstance(small(deep_supervision=1)(image), torch.Tensor)
    with pytest.raises(PyrasegError, match="deep_supervision"):
        small(deep_supervision=0)


@pytest.mark.parametrize("size", [(18, 16, 16), (16, 17, 16), (16, 16, 15)])
def test_deep_supervision_refuses_patches_whose_maps_would_lie_beside_their_labels(size):
    """Of a patch that is padded, a coarse map covers more than the label does."""
    image = torch.randn(1, 2, *size)
    with pytest.raises(PyrasegError, match=r"no multiples of \(4, 4, 4\).*Change patch_size"):
        small()(image)
    assert small(deep_supervision=1)(image).shape == small().eval()(image).shape == (1, 3, *size)


def test_parts_freeze_and_learn():
    network = small()
    network.learn_only(["head"])
    network(torch.randn(1, 2, 16, 16, 16))[0].sum().backward()
    learned = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learned == {"head"}
    assert network.encoder_layers() == ["encoder.stages.0", "encoder.stages.1", "encoder.stages.2"]


@pytest.mark.slow
def test_torchscript_and_onnx_give_the_same_logits_at_other_sizes(tmp_path):
    network = small(spacing=[0.8, 0.8, 3]).eval()
    scripted = torch.jit.script(network)
    free = {axis: torch.export.Dim.DYNAMIC for axis in (2, 3, 4)}
    traced = (torch.zeros(1, 2, 24, 32, 16),)
    torch.onnx.export(network, traced, tmp_path / "it.onnx", dynamo=True, dynamic_shapes=(free,), external_data=False)
    session = open_session(tmp_path / "it.onnx", threads=1, remedy="")
    for size in [(20, 24, 12), (33, 17, 21), (48, 16, 5)]:
        image = torch.randn(1, 2, *size)
        with torch.no_grad():
            expected = network(image)
            torch.testing.assert_close(scripted(image), expected)
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("kernels", ["float32", "bfloat16"])
def test_training_on_a_cpu_has_the_gradients_of_pytorch(kernels):
    image = torch.randn(3, 2, 16, 24, 16, generator=torch.Generator().manual_seed(1))
    gradients = []
    for setting in ("pytorch", kernels):
        network = small()
        logits = TrainingInferer(setting)(image, network)
        assert {each.dtype for each in logits} == {torch.float32}
        sum(each.square().mean() for each in logits).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > (0.99999 if kernels == "float32" else 0.95)


@pytest.mark.slow
def test_instance_norm_of_channels_last_is_that_of_pytorch():
    norm = nn.InstanceNorm3d(4, affine=True)
    nn.init.normal_(norm.weight)
    image = torch.randn(3, 4, 5, 6, 7, dtype=torch.float64)
    norm = norm.double()
    expected = norm(image)
    last = image.to(memory_format=torch.channels_last_3d).requires_grad_()
    with FastInstanceNorm():
        torch.testing.assert_close(norm(last), expected)
        assert torch.autograd.gradcheck(norm, last)

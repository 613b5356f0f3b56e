# SPDX-License-Identifier: Apache-2.0
"""What every segmentation network has to show, whatever its encoder and its head."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from bundle.pyraseg.networks.segmentation import SegmentationNetwork

CLASSES = 5
TRACED = (70, 91)
#: Odd, even, not square, larger than the traced size and smaller: 33 gives maps of 3 x 3 at stride 16, under 7 bins.
SIZES = [(33, 33), (64, 64), (97, 130), (160, 96), (255, 65), (33, 321)]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def randomize_statistics(network: nn.Module) -> None:
    """Give batch norm statistics as training leaves them, so that no graph passes that forgets them."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)


class NetworkTests:
    """Derive a class with a fixture `network` of class scope: three input channels and `CLASSES` outputs."""

    @pytest.fixture(autouse=True)
    def prepared(self, network: SegmentationNetwork) -> None:
        torch.manual_seed(0)
        network.unfreeze(*network.part_names())
        network.eval()

    @pytest.mark.parametrize("size", [(33, 47), (34, 321), (321, 35), (64, 96)])
    def test_logits_have_the_size_of_the_image(self, network, size):
        with torch.no_grad():
            assert network(torch.randn(1, 3, *size)).shape == (1, CLASSES, *size)

    def test_every_parameter_gets_a_gradient(self, network):
        logits = network.train()(torch.randn(2, 3, 65, 50))
        logits.square().mean().backward()
        missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        assert not missing
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
        network.zero_grad(set_to_none=True)

    @pytest.mark.parametrize("frozen", [["encoder"], ["encoder.stem", "encoder.stages.3"], ["pyramid"], ["head"]])
    def test_frozen_parts_stay_bit_identical(self, network, frozen):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        network.freeze(*frozen)
        groups = network.parameter_groups(frozen)
        optimizer = torch.optim.AdamW(groups, lr=1e-4, weight_decay=0.1)
        for _ in range(2):
            network.train()  # as a trainer does in every iteration
            optimizer.zero_grad(set_to_none=True)
            network(torch.randn(2, 3, 64, 64)).square().mean().backward()
            optimizer.step()
        changed = {name for name, value in network.state_dict().items() if not value.equal(before[name])}
        held = {name for name in before if name.startswith(tuple(f"{part}." for part in frozen))}
        assert held and not changed & held
        learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert learning <= changed
        network.load_state_dict(before)

    @pytest.mark.slow
    def test_scripted_equals_eager(self, network, tmp_path):
        torch.jit.script(network).save(tmp_path / "network.ts")
        compare_logits(network, torch.jit.load(tmp_path / "network.ts"))

    @pytest.mark.slow
    def test_onnx_by_tracing_holds_at_other_sizes(self, network, tmp_path):
        axes = {"image": {0: "batch", 2: "height", 3: "width"}, "pred": {0: "batch", 2: "height", 3: "width"}}
        example = torch.randn(2, 3, *TRACED)
        options = {"input_names": ["image"], "output_names": ["pred"], "opset_version": 18}
        torch.onnx.export(network, (example,), tmp_path / "n.onnx", dynamo=False, dynamic_axes=axes, **options)
        compare_logits(network, in_onnxruntime(tmp_path / "n.onnx"))

    @pytest.mark.slow
    def test_torch_export_holds_at_other_sizes(self, network):
        check_torch_export(network)

    @pytest.mark.slow
    def test_onnx_by_torch_export_holds_at_other_sizes(self, network, tmp_path):
        check_onnx_by_torch_export(network, tmp_path / "n.onnx")


def compare_logits(network: nn.Module, exported: Callable[[Tensor], Tensor]) -> None:
    """Assert that an exported network gives the network's logits at every size, for one image and for several."""
    assert TRACED not in SIZES
    for batch, size in zip(itertools.cycle((1, 3)), SIZES, strict=False):
        image = torch.randn(batch, 3, *size)
        with torch.no_grad():
            expected = network(image)
            assert expected.std() > 1e-4  # logits that say something
            assert relative_error(exported(image), expected) <= 1e-4, size


def check_torch_export(network: nn.Module) -> None:
    program = torch.export.export(network, (torch.randn(2, 3, *TRACED),), dynamic_shapes=dynamic_shapes())
    compare_logits(network, program.module())


def check_onnx_by_torch_export(network: nn.Module, path: Path) -> None:
    options = {"input_names": ["image"], "output_names": ["pred"], "opset_version": 18, "verbose": False}
    example = (torch.randn(2, 3, *TRACED),)
    torch.onnx.export(network, example, path, dynamo=True, dynamic_shapes=dynamic_shapes(), **options)
    compare_logits(network, in_onnxruntime(path))


def dynamic_shapes() -> tuple[dict[int, torch.export.Dim], ...]:
    return ({axis: torch.export.Dim(name) for axis, name in [(0, "batch"), (2, "height"), (3, "width")]},)


def in_onnxruntime(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that runs a file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        (logits,) = session.run(None, {"image": np.ascontiguousarray(image.numpy())})
        return torch.from_numpy(logits)

    return run

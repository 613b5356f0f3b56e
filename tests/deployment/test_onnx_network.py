# SPDX-License-Identifier: Apache-2.0
"""An exported network stands in for the one in PyTorch, and nothing else does."""

import pytest
import torch

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.deployment.exporting import Parts, export
from bundle.pyraseg.deployment.onnx_network import OnnxNetwork
from tests.helpers.onnx_paths import network, photograph, steps


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    paths = folder / "n.onnx", folder / "p.onnx"
    export(Parts(network(3), 3, 3, *steps(photograph()), "photograph"), *paths, properties={})
    return paths


def test_gives_the_logits_whatever_the_layout_in_memory(files):
    exported = OnnxNetwork(files[0], threads=1, settings=None, remedy="").eval()
    image = torch.randn(2, 3, 41, 67)
    with torch.no_grad():
        expected = network(3)(image)
    for form in (image, image.to(memory_format=torch.channels_last), image.double(), image.flip(3).flip(3)):
        torch.testing.assert_close(exported(form), expected, atol=1e-5, rtol=0)
    assert not list(exported.parameters())


def test_other_files_are_refused(files, tmp_path):
    (tmp_path / "text.onnx").write_text("text")
    for path, text in [
        (tmp_path / "none.onnx", "There is no model at"),
        (tmp_path / "text.onnx", "cannot be loaded"),
        (files[1], "is no network alone: it takes image"),
    ]:
        with pytest.raises(PyrasegError, match=f"{text}.*Export it"):
            OnnxNetwork(path, threads=1, settings=None, remedy="Export it.")

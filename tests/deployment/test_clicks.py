# SPDX-License-Identifier: Apache-2.0
"""Networks for clicks as two graphs: what both compute, one behind the other, is what the network computes."""

import numpy as np
import onnx
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.deployment.agreement import compare_clicks, compare_path_with_clicks
from bundle.pyraseg.deployment.examples import examples
from bundle.pyraseg.deployment.exporting import Parts, export
from bundle.pyraseg.deployment.onnx_network import OnnxClickNetwork, OnnxNetwork
from bundle.pyraseg.deployment.quantization import quantize
from bundle.pyraseg.networks.clicks import ClickNetwork
from bundle.pyraseg.networks.pspnet import PSPNet
from bundle.pyraseg.runtime.click_model import click_file, log_odds_of, with_log_odds
from bundle.pyraseg.runtime.model import open_session
from bundle.pyraseg.runtime.prompts import draw_prompts
from tests.helpers.click_models import SmallClicks, export_clicks
from tests.helpers.exported import PROPERTIES
from tests.helpers.onnx_paths import network, photograph, recipe_of, steps, volume

FLIPS = [[0], [0, 1]]


@pytest.mark.parametrize("overlapping", [False, True])
def test_log_odds_in_numpy_are_those_of_the_network(overlapping):
    clicked = SmallClicks(network(3, 4), overlapping=overlapping)
    logits = torch.randn(1, 4, 9, 7, generator=torch.Generator().manual_seed(0)) * 20
    for channel in range(4):
        index = torch.tensor([channel])
        found = log_odds_of(logits[0].numpy(), channel, overlapping=overlapping)
        np.testing.assert_allclose(found, clicked.log_odds_of(logits, index)[0, 0], rtol=1e-5, atol=1e-5)
        changed = with_log_odds(logits[0].numpy(), channel, found - 3, overlapping=overlapping)
        expected = clicked.with_log_odds(logits, index, torch.from_numpy(found - 3)[None, None])[0]
        np.testing.assert_allclose(changed, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_graphs_of_slices_with_mirror_images(tmp_path):
    """Logits are averaged over the mirror images, features are those of the image itself."""
    found = export_clicks(tmp_path, volume("soft_tissue", context_slices=1), channels=3, flips=FLIPS)
    files = {name: onnx.load(tmp_path / f"small{name}.onnx") for name in ("", ".network", ".click")}
    recipe = recipe_of(*steps(volume("soft_tissue", context_slices=1), FLIPS))
    graphs = files[""], files[".click"]
    agreement = compare_path_with_clicks(*graphs, found.network, found.reference, examples(recipe))
    assert agreement.images == 6 and agreement.logit_error < 1e-6 and agreement.mask_agreement > 0.9999
    assert compare_clicks(files[".network"], files[".click"], found.network, 3).logit_error < 1e-6
    other = SmallClicks(network(3, 4)).eval()
    with pytest.raises((PyrasegError, ValueError, IndexError, AssertionError)):
        compare_clicks(files[".network"], files[".click"], other, 3).require("It")
    stated = {item.key: item.value for item in files[".click"].metadata_props}
    assert stated["content"] == "clicks" and stated["weights_sha256"] == PROPERTIES["weights_sha256"]
    # A network in the place of one in PyTorch computes the same.
    image = torch.randn(1, 3, 41, 58, generator=torch.Generator().manual_seed(0))
    options = {"threads": 1, "settings": None, "remedy": ""}
    files_of = tmp_path / "small.network.onnx", click_file(tmp_path / "small.network.onnx")
    graph = OnnxClickNetwork(*files_of, overlapping=False, **options)
    index, last = torch.tensor([2]), np.zeros((41, 58), np.float32)
    prompts = torch.from_numpy(draw_prompts([(3, 50, True), (30, 9, False)], (1, 2, 9, 12), (41, 58), last)[None])
    with torch.no_grad():
        expected = found.network(image, prompts, index)
        logits, *features = graph.look(image)
        given = graph.refine(graph.log_odds_of(logits, index), *features, prompts)
        torch.testing.assert_close(graph(image), found.network(image), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-4)
    assert isinstance(OnnxNetwork(files_of[0], **options), OnnxNetwork)


def test_tiles_are_refused(tmp_path):
    shown, _, post = steps(photograph())
    tiles = SlidingWindowInferer((24, 20), mode="gaussian")
    parts = Parts(SmallClicks(network(3)), 3, 3, shown, tiles, post, "photograph")
    with pytest.raises(PyrasegError, match="sees whole images"):
        export(parts, tmp_path / "a.network.onnx", tmp_path / "a.onnx", properties=PROPERTIES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_graphs_of_a_real_network_and_int8(tmp_path):
    torch.manual_seed(0)
    plain = PSPNet(in_channels=3, out_channels=3, encoder="tf_efficientnet_lite0", pretrained=False, depth=3)
    clicked = ClickNetwork(plain, width=16).eval()
    torch.nn.init.normal_(clicked.prompts.correction.weight)
    parts = Parts(clicked, 3, 3, *steps(photograph()), "photograph")
    agreements = export(parts, tmp_path / "a.network.onnx", tmp_path / "a.onnx", properties=PROPERTIES)
    assert [path.name for path in agreements] == ["a.network.onnx", "a.click.onnx", "a.onnx"]
    assert max(agreement.logit_error for agreement in agreements.values()) < 1e-5
    random = np.random.default_rng(0)
    images = [random.normal(size=(1, 3, 64, 48)).astype(np.float32) for _ in range(4)]
    int8 = quantize(tmp_path / "a.network.onnx", images, images, enough=0.5)
    run = open_session(int8.model.SerializeToString(), threads=1, remedy="")
    assert [output.name for output in run.get_outputs()] == ["logits", "fine", "coarse"]
    logits, fine, coarse = run.run(None, {"image": images[0]})
    with torch.no_grad():
        expected = clicked.look(torch.from_numpy(images[0]))
    assert (logits.argmax(1) == expected[0].argmax(1).numpy()).mean() > 0.8
    assert np.corrcoef(fine.ravel(), expected[1].numpy().ravel())[0, 1] > 0.95 and coarse.shape == expected[2].shape

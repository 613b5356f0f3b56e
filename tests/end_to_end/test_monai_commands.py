# SPDX-License-Identifier: Apache-2.0
"""MONAI's own commands accept the bundle, for each task."""

import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser

from tests.helpers.commands import ROOT, config_files, monai_bundle

TASKS = {
    "phantom": ["inference.json"],
    "dermoscopy": ["inference.json", "photographs_inference.json", "dermoscopy_inference.json"],
}


def test_the_declared_shapes_are_the_networks():
    run = monai_bundle(
        "verify_net_in_out", "network_def", "--config_file", config_files("inference.json"),
        "--meta_file", str(ROOT / "configs" / "metadata.json"), cwd=ROOT,
    )  # fmt: skip
    assert run.returncode == 0 and "verified with no error" in run.stdout + run.stderr, run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_ckpt_export_writes_a_torchscript_that_equals_the_network(task, tmp_path):
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in TASKS[task]])
    network = parser.get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    run = monai_bundle(
        "ckpt_export", "network_def", "--config_file", config_files(*TASKS[task]),
        "--meta_file", str(ROOT / "configs" / "metadata.json"),
        "--ckpt_file", str(tmp_path / "model.pt"), "--filepath", str(tmp_path / "model.ts"), cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    image = torch.randn(2, parser.get_parsed_content("network_def#in_channels"), 97, 130)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(image), network(image), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_onnx_export_writes_a_graph_that_equals_the_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # MONAI 1.6.1 leaves a copy of the weights there
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in TASKS["dermoscopy"]])
    network = parser.get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    metadata = [ROOT / "configs" / name for name in ("metadata.json", "dermoscopy_metadata.json")]
    run = monai_bundle(
        "onnx_export", "network_def", "--config_file", config_files(*TASKS["dermoscopy"]),
        "--meta_file", str([str(path) for path in metadata]),
        "--ckpt_file", str(tmp_path / "model.pt"), "--filepath", str(tmp_path / "model.onnx"), cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    image = torch.randn(*session.get_inputs()[0].shape)  # the size of the metadata alone: it is traced
    with torch.no_grad():
        expected = network(image)
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-3)

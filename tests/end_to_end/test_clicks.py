# SPDX-License-Identifier: Apache-2.0
"""A training of clicks on drawn lesions: on a trained model, interrupted and resumed, and then used without a click."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events

from bundle.pyraseg.commands.run import run_config
from bundle.pyraseg.training import read_click_network, read_model
from tests.helpers.commands import ROOT, monai_bundle
from tests.helpers.drawn_photographs import draw

pytestmark = pytest.mark.slow

SMALL = {
    "slice_size": [64, 64], "encoder": "tf_efficientnet_lite0", "samples_per_epoch": 16, "batch_size": 4,
    "num_workers": 0, "previews": 0, "device": "cpu",
}  # fmt: skip
FILES = ["train.json", "photographs.json", "dermoscopy.json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with photographs and `plain.pt`, a model that was trained on them for a moment."""
    folder = tmp_path_factory.mktemp("clicks")
    for seed in range(14):
        draw(folder / "data", seed, (80, 70))
    train(folder, FILES, "plain", epochs=1, ema_decay=0)
    return folder


def train(folder: Path, files: list[str], name: str, *, fails_in: int | None = None, **options: Any) -> Path:
    """Train, or begin to: raise ZeroDivisionError in an epoch; return the weights."""

    def watch(workflow: Any) -> None:
        def fail(engine: Any) -> None:
            if engine.state.epoch == fails_in:
                raise ZeroDivisionError

        workflow.parser.get_parsed_content("train#trainer").add_event_handler(Events.ITERATION_COMPLETED(every=3), fail)

    places = {"dataset_dir": folder / "data", "output_dir": folder / name, "cache_dir": folder / "cache"}
    given = {key: str(path) for key, path in (places | {"model_file": folder / f"{name}.pt"}).items()}
    run_config(
        "training", [ROOT / "configs" / file for file in files], folder, {**SMALL, **given, **options}, watch=watch
    )
    return folder / f"{name}.pt"


def test_a_resumed_training_of_clicks_is_the_one_that_was_not_interrupted(folder):
    options = {"click_from": str(folder / "plain.pt"), "epochs": 3, "click_rounds": 3}
    files = [*FILES, "click.json"]
    whole = train(folder, files, "whole", **options)
    with pytest.raises(RuntimeError) as error:
        train(folder, files, "died", fails_in=2, **options)
    assert "ZeroDivisionError" in str(error.getrepr(chain=True))
    resumed = train(folder, files, "died", resume=True, **options)
    one, other = read_model(whole)[0], read_model(resumed)[0]
    assert one.keys() == other.keys() and all(value.equal(other[name]) for name, value in one.items())

    plain = read_model(folder / "plain.pt")[0]
    assert all(value.equal(one[f"plain.{name}"]) for name, value in plain.items())
    network, _ = read_click_network(whole)
    assert any(parameter.abs().max() > 0 for parameter in network.prompts.correction.parameters())

    inference = ["inference.json", "photographs_inference.json", "dermoscopy_inference.json"]
    found = []
    for name, model in ([], folder / "plain.pt"), (["click_inference.json"], whole):
        out = folder / f"out_{model.stem}"
        config = str([str(ROOT / "configs" / file) for file in [*inference, *name]])
        done = monai_bundle(
            "run", "inferring", "--config_file", config, "--dataset_dir", str(folder / "data" / "images"),
            "--output_dir", str(out), "--model_file", str(model), "--slice_size", "[64,64]",
            "--encoder", "tf_efficientnet_lite0",
            cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(
            {path.name: path.read_bytes() for path in sorted(out.glob("c*.png")) if "overlay" not in path.name}
        )
    assert found[0] and found[0] == found[1]


def test_clicks_need_a_trained_model(folder):
    with pytest.raises(RuntimeError) as error:
        train(folder, [*FILES, "click.json"], "none", epochs=1)
    assert "give its weights with --click_from" in str(error.getrepr(chain=True))
    assert torch.is_tensor(next(iter(read_model(folder / "plain.pt")[0].values())))

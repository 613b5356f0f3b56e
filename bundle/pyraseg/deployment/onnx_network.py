# SPDX-License-Identifier: Apache-2.0
"""Exported networks in the place of the one in PyTorch."""

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bundle.pyraseg.core import ModelSettings, PyrasegError
from bundle.pyraseg.networks import ClickNetwork
from bundle.pyraseg.runtime import FEATURES, open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class OnnxNetwork(nn.Module):
    """Compute logits by ONNX Runtime, on the CPU: image (B, C, W, H[, D]) float32 -> logits (B, classes, W, H[, D]).

    It has no parameters, so nothing is trained and no weights are loaded into it.

    Args:
        path: the network alone, as `pyraseg export` writes it.
        threads: how many threads it runs on.
        settings: of the config that it is a part of; those that it was exported with have to be the same. None: no
            config has a part in it.
        remedy: what a user does to get the file, for the message where there is none.

    Raises:
        PyrasegError: there is no such file, it is no network of that kind, or it belongs to other settings.
    """

    def __init__(self, path: str | Path, *, threads: int, settings: ModelSettings | None, remedy: str) -> None:
        super().__init__()
        self.session = open_session(path, threads=threads, remedy=remedy)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()[:1]  # others are for clicks
        if [item.type for item in (*inputs, *outputs)] != ["tensor(float)"] * 2 or len(inputs[0].shape) not in (4, 5):
            names = ", ".join(item.name for item in inputs)
            raise PyrasegError(f"{path} is no network alone: it takes {names}. {remedy}")
        self.input, self.output = inputs[0].name, outputs[0].name
        if settings is None:
            return
        stated = self.session.get_modelmeta().custom_metadata_map.get("settings")
        settings.require(None if stated is None else json.loads(stated), f"The network {path}")

    def forward(self, image: Tensor) -> Tensor:
        (logits,) = self.session.run(
            [self.output], {self.input: np.ascontiguousarray(image.detach().cpu().float().numpy())}
        )
        return torch.from_numpy(logits).to(image.device)


class OnnxClickNetwork(OnnxNetwork):
    """Look at images, and correct answers where somebody clicked, by ONNX Runtime: in the place of a `ClickNetwork`.

    Args:
        path: the network alone, as `pyraseg export` writes it.
        refining: the graph for clicks, see `click_file`.
        overlapping: the channels are regions.
        threads, settings, remedy: see `OnnxNetwork`.

    Raises:
        PyrasegError: see `OnnxNetwork`; or the network takes no clicks.
    """

    log_odds_of, with_log_odds = ClickNetwork.log_odds_of, ClickNetwork.with_log_odds

    def __init__(
        self,
        path: str | Path,
        refining: str | Path,
        *,
        overlapping: bool,
        threads: int,
        settings: ModelSettings | None,
        remedy: str,
    ) -> None:
        super().__init__(path, threads=threads, settings=settings, remedy=remedy)
        if not takes_clicks(self.session):
            raise PyrasegError(f"{path} takes no clicks. {remedy}")
        self.refining = open_session(refining, threads=threads, remedy=remedy)
        self.overlapping = overlapping

    def look(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return logits and features, see `ClickNetwork.look`."""
        found = self.session.run([self.output, *FEATURES], {self.input: np.ascontiguousarray(image.float().numpy())})
        return tuple(map(torch.from_numpy, found))

    def refine(self, log_odds: Tensor, fine: Tensor, coarse: Tensor, prompts: Tensor) -> Tensor:
        """Return corrected log-odds, see `ClickNetwork.refine`."""
        values = dict(zip(("log_odds", *FEATURES, "prompts"), (log_odds, fine, coarse, prompts), strict=True))
        (found,) = self.refining.run(["corrected"], {name: value.numpy() for name, value in values.items()})
        return torch.from_numpy(found)


def takes_clicks(session: "InferenceSession") -> bool:
    """Return whether a network alone has the outputs that a graph for clicks begins with."""
    return set(FEATURES) <= {output.name for output in session.get_outputs()}


def load_engine(path: str | Path, *, settings: ModelSettings, remedy: str) -> nn.Module:
    """Return the compiled network on the GPU: image (B, C, W, H) -> logits (B, classes, W, H), at the exported size.

    Args:
        path: TorchScript with a TensorRT engine, which says nothing of its settings: that is told.
        settings: of the config that it is a part of.
        remedy: what a user does to get it, for the message where there is none.

    Raises:
        PyrasegError: there is no file, no GPU, or no package `torch_tensorrt`, which the engine runs in.
    """
    if not Path(path).is_file():
        raise PyrasegError(f"There is no TensorRT engine at {path}. {remedy}")
    if not torch.cuda.is_available():
        raise PyrasegError("TensorRT needs an NVIDIA GPU, and torch sees none. Leave inference_trt.json out.")
    try:
        importlib.import_module("torch_tensorrt")
    except ImportError as error:
        raise PyrasegError("The package torch_tensorrt is not installed: pip install torch-tensorrt.") from error
    settings.require(None, f"The engine {path}")
    return torch.jit.load(path, map_location="cuda").eval()

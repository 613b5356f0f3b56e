# SPDX-License-Identifier: Apache-2.0
"""An average of the weights over the last iterations."""

from ignite.engine import Engine
from ignite.handlers import EMAHandler
from torch import nn


class AveragedWeights:
    """Keep an exponential moving average of a network's weights and buffers, or, switched off, the network itself.

    Args:
        network: that is trained.
        ema_decay: share of the average that an iteration keeps, such as 0.99; 0 switches it off.
    """

    def __init__(self, network: nn.Module, *, ema_decay: float = 0.0) -> None:
        self.handler = EMAHandler(network, momentum=1 - ema_decay, handle_buffers="update") if ema_decay else None
        #: The network to validate and to keep: the average, or the trained one.
        self.network: nn.Module = self.handler.ema_model if self.handler else network

    def attach(self, engine: Engine) -> None:
        if self.handler:
            self.handler.attach(engine, warn_if_exists=False)

    def state_dict(self) -> dict:
        """Return the average; nothing where it is switched off."""
        return self.network.state_dict() if self.handler else {}

    def load_state_dict(self, state: dict) -> None:
        """Go on from an average."""
        if self.handler:
            self.network.load_state_dict(state)

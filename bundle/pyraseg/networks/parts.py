# SPDX-License-Identifier: Apache-2.0
"""Parts of a network that learn or stand still by name."""

from collections.abc import Iterable

from torch import nn

from bundle.pyraseg.errors import PyrasegError


class PartwiseNetwork(nn.Module):
    """A network whose direct children are its named parts, such as `encoder`, `pyramid` and `head`.

    The network owns which parts are frozen: a frozen part has no gradients and stays in evaluation mode inside
    `train()`, so that its batch-norm statistics stand still as well. (A trainer calls `train()` every iteration.)
    """

    def __init__(self) -> None:
        super().__init__()
        self._frozen: frozenset[str] = frozenset()

    def part_names(self) -> list[str]:
        """Return the names of the parts that have parameters, in order."""
        return [name for name, part in self.named_children() if any(True for _ in part.parameters())]

    def learn_only(self, names: Iterable[str]) -> None:
        """Let the named parts learn and freeze every other part.

        Raises:
            PyrasegError: a name is not a part of this network.
        """
        learning = set(names)
        unknown = sorted(learning - set(self.part_names()))
        if unknown:
            raise PyrasegError(f"The network has no part {', '.join(unknown)}. Its parts: {self.part_names()}.")
        self._frozen = frozenset(name for name in self.part_names() if name not in learning)
        for name, part in self.named_children():
            part.requires_grad_(name not in self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PartwiseNetwork":
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).eval()
        return self

    def parameter_groups(self) -> list[dict]:
        """Return one optimizer group a part, with its `name`: every parameter is in a group from the first epoch on."""
        return [{"name": name, "params": list(self.get_submodule(name).parameters())} for name in self.part_names()]

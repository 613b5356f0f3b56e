# SPDX-License-Identifier: Apache-2.0
"""A network whose answer is corrected by clicks: a trained one as it is, and a small part behind it that sees them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError, nearest_hint
from bundle.pyraseg.networks.deeplab import DeepLabV3Plus
from bundle.pyraseg.networks.layers import ConvNormAct, enlarge, pad_to_multiple, resize
from bundle.pyraseg.networks.pspnet import PSPNet
from bundle.pyraseg.networks.segmentation import PartwiseNetwork
from bundle.pyraseg.runtime import PROMPTS

#: Networks that can be corrected, by their names.
PLAIN = {network.__name__: network for network in (PSPNet, DeepLabV3Plus)}
#: Log-odds of the plain network count up to here where they are corrected: no answer is too sure to be overruled.
SURE = 6.0
#: Channels at half the image's resolution.
HALF = 16


class ClickNetwork(PartwiseNetwork):
    """Correct the answer of a trained network, class by class, where somebody clicked.

    Its parts are `plain`, the trained network, which never learns and always is in evaluation mode, and `prompts`.
    `look` is computed once for an image, `refine` for every click; `Look(network)` and `network.prompts` are these as
    networks of their own. Without a prompt the result is the plain network's, bit by bit.

    Args:
        plain: a network for 2-D images.
        width: channels of the prompts' part.
        overlapping: whether the classes of the plain network overlap, one sigmoid each (see `core.Structures`).

    Raises:
        PyrasegError: the plain network is for volumes.

    >>> plain = PSPNet(in_channels=1, encoder="resnet18", pretrained=False)
    >>> network = ClickNetwork(plain, width=16).eval()
    >>> image, prompts = torch.randn(1, 1, 50, 70), torch.zeros(1, 5, 50, 70)
    >>> with torch.no_grad():
    ...     log_odds = network(image, prompts, torch.tensor([1]))
    ...     bool((log_odds == network.log_odds_of(plain(image), torch.tensor([1]))).all())
    True
    """

    def __init__(self, plain: nn.Module, width: int = 64, *, overlapping: bool = False) -> None:
        super().__init__()
        if not isinstance(plain, PSPNet | DeepLabV3Plus) or any(
            isinstance(each, nn.Conv3d) for each in plain.modules()
        ):
            raise PyrasegError(f"Clicks correct {' and '.join(PLAIN)} in 2-D, not {type(plain).__name__}.")
        self.plain = plain
        self.prompts = PromptPart(plain.encoder.channels, width)
        self.overlapping = overlapping
        self.freeze("plain")

    def look(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what has to be known of an image, whatever is clicked.

        Args:
            image: (B, C, W, H).

        Returns:
            logits: of the plain network, (B, K, W, H).
            fine: features at a quarter of the resolution, (B, width, w, h).
            coarse: of the deepest map, (B, 2 * width, v, g).
        """
        with torch.no_grad():
            padded = pad_to_multiple(image, [32, 32])
            maps = self.plain.encoder(padded)
            logits = enlarge(self.plain.decode(maps, padded), padded, image)
        fine, coarse = self.prompts.features(maps)
        return logits, fine, coarse

    def log_odds_of(self, logits: Tensor, class_index: Tensor) -> Tensor:
        """Return the log-odds of a class against all others, (B, 1, W, H).

        Args:
            logits: (B, K, W, H).
            class_index: the channel of the class, one an image, (B,).
        """
        classes = torch.arange(logits.shape[1], device=logits.device).reshape(1, -1, 1, 1)
        chosen = classes == class_index.reshape(-1, 1, 1, 1)
        of_class = torch.where(chosen, logits, torch.zeros_like(logits)).sum(dim=1, keepdim=True)
        if self.overlapping:
            return of_class
        return of_class - logits.masked_fill(chosen, -torch.inf).logsumexp(dim=1, keepdim=True)

    def with_log_odds(self, logits: Tensor, class_index: Tensor, log_odds: Tensor) -> Tensor:
        """Return logits that say of one class what was corrected, and of the others what they said before.

        Args:
            logits: (B, K, W, H).
            class_index: the channel of the class, one an image, (B,).
            log_odds: of the class, (B, 1, W, H), see `log_odds_of`.
        """
        classes = torch.arange(logits.shape[1], device=logits.device).reshape(1, -1, 1, 1)
        chosen = classes == class_index.reshape(-1, 1, 1, 1)
        if self.overlapping:
            return torch.where(chosen, log_odds, logits)
        others = logits.masked_fill(chosen, -torch.inf).logsumexp(dim=1, keepdim=True)
        return torch.where(chosen, log_odds + others, logits)

    def refine(self, log_odds: Tensor, fine: Tensor, coarse: Tensor, prompts: Tensor) -> Tensor:
        """Return corrected log-odds of a class, (B, 1, W, H); without a prompt those that were given.

        Args:
            log_odds: of the plain network, see `log_odds_of`.
            fine, coarse: features, see `look`.
            prompts: (B, 5, W, H), see `runtime.draw_prompts`.
        """
        return self.prompts(log_odds, fine, coarse, prompts)

    def forward(self, image: Tensor, prompts: Tensor | None = None, class_index: Tensor | None = None) -> Tensor:
        """Return the corrected log-odds of a class (B, 1, W, H); without prompts the plain network's logits."""
        if prompts is None or class_index is None:
            return self.plain(image)
        logits, fine, coarse = self.look(image)
        return self.refine(self.log_odds_of(logits, class_index), fine, coarse, prompts)

    def _set_learning(self, names: Any, *, learns: bool) -> None:
        names = list(names)
        if learns and any(f"{name}.".startswith("plain.") for name in names):
            raise PyrasegError("The part 'plain' is a trained network and stays as it is. Let 'prompts' learn.")
        super()._set_learning(names, learns=learns)


class ClickFeatures(nn.Module):
    """Features for corrections from an encoder's maps: a top-down path, and the deepest map.

    Args:
        channels: of the maps, from fine to coarse.
        width: channels of the finest features; the coarse ones have twice as many.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"norm": "batch"}
        self.laterals = nn.ModuleList(ConvNormAct(count, width, kernel_size=1, **options) for count in channels[::-1])
        self.fusions = nn.ModuleList(
            ConvNormAct(width, width, kernel_size=3, separable=True, **options) for _ in channels
        )
        self.coarse = ConvNormAct(channels[-1], 2 * width, kernel_size=1, **options)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return features of the finest and of the deepest map, see `ClickNetwork.look`."""
        fine = maps[-1]
        for index, (lateral, fusion) in enumerate(zip(self.laterals, self.fusions)):  # noqa: B905 TorchScript has no strict=
            skip = maps[len(maps) - 1 - index]
            fine = fusion(lateral(skip) if index == 0 else resize(fine, skip) + lateral(skip))
        return fine, self.coarse(maps[-1])


class PromptPart(nn.Module):
    """Corrections of log-odds from features and prompts, see `ClickNetwork.refine`.

    A small U-Net from half the resolution to a 32nd of it, to which features are added on the way. Every correction
    sees the whole image.

    Args:
        channels: of the encoder's maps, from fine to coarse, the first at stride 4.
        width: channels at stride 4 and 8; coarser ones have twice as many.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.sure = SURE  # TorchScript knows no constants of a module
        same: dict[str, Any] = {"kernel_size": 3, "norm": "batch", "separable": True}
        point: dict[str, Any] = {"kernel_size": 1, "norm": "batch"}
        self.features = ClickFeatures(channels, width)
        self.halved = ConvNormAct(len(PROMPTS) + 1, HALF, kernel_size=3, norm="batch", stride=2)
        self.quartered = ConvNormAct(HALF, width, kernel_size=3, norm="batch", stride=2)
        self.mix = ConvNormAct(width, width, kernel_size=3, norm="batch")
        widths = [width, width, 2 * width, 2 * width]
        self.down = nn.ModuleList(ConvNormAct(a, b, stride=2, **same) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ConvNormAct(count, count, **same) for count in widths[1:])
        self.whole = nn.Conv2d(widths[-1], widths[-1], kernel_size=1)
        self.narrow = nn.ModuleList(ConvNormAct(b, a, **point) for a, b in reversed(list(pairwise(widths))))
        self.up = nn.ModuleList(ConvNormAct(count, count, **same) for count in widths[-2::-1])
        self.last = ConvNormAct(width, HALF, **point)
        self.finest = ConvNormAct(HALF, HALF, kernel_size=3, norm="batch")
        self.correction = nn.Conv2d(HALF, 1, kernel_size=1)
        for parameter in self.correction.parameters():  # a training begins with the plain network's answer
            nn.init.zeros_(parameter)

    def forward(self, log_odds: Tensor, fine: Tensor, coarse: Tensor, prompts: Tensor) -> Tensor:
        """Return corrected log-odds, see `ClickNetwork.refine`."""
        known = log_odds.clamp(-self.sure, self.sure)
        padded = pad_to_multiple(torch.cat([known / self.sure, prompts], dim=1), [32, 32])
        half = self.halved(padded)
        x = self.mix(fine + self.quartered(half))
        finer = [x]
        for index, (down, block) in enumerate(zip(self.down, self.blocks)):  # noqa: B905
            x = down(x)
            if index == 1:  # the first of as many channels as the features of the deepest map
                x = x + resize(coarse, x)
            x = x + block(x)
            finer.append(x)
        x = x + self.whole(x.mean(dim=(2, 3), keepdim=True)).relu()
        for index, (narrow, up) in enumerate(zip(self.narrow, self.up)):  # noqa: B905
            skip = finer[len(finer) - 2 - index]
            x = up(resize(narrow(x), skip) + skip)
        x = self.finest(resize(self.last(x), half) + half)
        correction = enlarge(self.correction(x), padded, log_odds)
        return torch.where(prompts[:, -1:] > 0, known + correction, log_odds)


class Look(nn.Module):
    """What a click network computes once for an image, as a network of its own: see `ClickNetwork.look`."""

    def __init__(self, network: ClickNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.network.look(image)


def click_network(*, plain: str = "PSPNet", width: int = 64, overlapping: bool = False, **options: Any) -> ClickNetwork:
    """Return a `ClickNetwork` around a network that is built first: what a config says of it, and two more words.

    Args:
        plain: name of the network that is corrected, a key of `PLAIN`.
        width, overlapping: see `ClickNetwork`.
        options: of the network that is corrected.

    Raises:
        PyrasegError: another name.
    """
    if plain not in PLAIN:
        raise PyrasegError(f"Clicks correct {' and '.join(PLAIN)}, not {plain!r}.{nearest_hint(plain, PLAIN)}")
    return ClickNetwork(PLAIN[plain](**options), width, overlapping=overlapping)

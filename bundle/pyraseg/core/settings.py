# SPDX-License-Identifier: Apache-2.0
"""Settings that belong to weights: they travel with them, and are compared where weights are loaded."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.pyraseg.core.errors import PyrasegError, nearest_hint

logger = logging.getLogger(__name__)

#: What to do with weights of 2-D images in a config of volumes, and the other way round.
_OVERLAY = (
    "Name the task that the weights are of, or the overlay of 2-D images: configs/photographs_inference.json, in "
    "training, evaluation and calibration configs/photographs.json."
)
_NO_OVERLAY = (
    "Name the task that the weights are of, or leave out the overlay of 2-D images, configs/photographs.json or "
    "configs/photographs_inference.json, and the tasks that stand on it."
)


@dataclass(frozen=True)
class ModelSettings:
    """Hold what a config says of its network, of what it shows it, and of what its classes mean.

    Attributes:
        values: plain ones, as JSON has them, by names such as "class_names" and "ResampleSlicesd.spacing".
        options: the option of the config that sets a value, by its name; a value that is computed has none.
        may_differ: options, or names of values, that may differ from those of a training: names of classes in another
            language, or a finer spacing that is to be tried.
    """

    values: Mapping[str, Any]
    options: Mapping[str, str]
    may_differ: Sequence[str] = ()

    def differing(self, trained: Mapping[str, Any]) -> list[str]:
        """Return the names of the values that are others than those of a training; what only one of them has is none.

        >>> ModelSettings({"spacing": 2.0, "windows": [{"center": 40}]}, {}).differing({"spacing": 2})
        []
        """
        return [name for name, value in self.values.items() if name in trained and trained[name] != value]

    def require(self, trained: Mapping[str, Any] | None, source: object, *, remedy: str | None = None) -> None:
        """Refuse weights of a training with other settings; tell where weights say nothing of theirs.

        Args:
            trained: the settings that came with the weights; None: there were none.
            source: of the weights, for messages.
            remedy: what to do about a difference where the program takes no options of the config.

        Raises:
            PyrasegError: settings differ and are not among `may_differ`, or there is no setting of that name.
        """
        known = [*self.options.values(), *self.values]
        if unknown := [name for name in self.may_differ if name not in known]:
            raise PyrasegError(
                f"may_differ names {unknown[0]!r}, which is no setting.{nearest_hint(unknown[0], known)}"
            )
        if trained is None:
            logger.warning(
                "%s does not say what it was trained with. Compare these settings with those of its training: %s",
                source, "; ".join(f"{self._shown(name)} {_text(value)}" for name, value in self.values.items()),
            )  # fmt: skip
            return
        differing = self.differing(trained)
        wrong = [name for name in differing if not {name, self._shown(name)} & set(self.may_differ)]
        if wrong:
            raise PyrasegError(
                f"{source} was trained with other settings than these:\n{self.told(trained, wrong)}\n"
                f"{remedy or self._advice(trained, wrong)}"
            )
        if differing:
            logger.warning("%s was trained with other settings:\n%s", source, self.told(trained, differing))

    def told(self, trained: Mapping[str, Any], names: Sequence[str]) -> str:
        """Return a line for each of some values, with that of the training."""
        return "\n".join(
            f"  {self._shown(name)}: {_text(trained[name])} in its training, {_text(self.values[name])} here"
            for name in names
        )

    def _advice(self, trained: Mapping[str, Any], wrong: Sequence[str]) -> str:
        """Return what to do about values that are others than those of a training: options that the config takes."""
        kind, left, sentences = trained.get("image_kind"), list(wrong), []
        if "image_kind" in wrong:  # the transforms follow from it
            left = [name for name in left if name != "preprocessing"]
            if "volume" in (kind, self.values["image_kind"]):  # they are those of another overlay, which no option sets
                sentences.append(_OVERLAY if kind != "volume" else _NO_OVERLAY)
                if kind != "projection":  # the overlay says photograph
                    left.remove("image_kind")
        if options := [f"--{self.options[name]} '{_text(trained[name])}'" for name in left if name in self.options]:
            sentences.append(f"Give {'also ' if sentences else ''}those of the training: {' '.join(options)}.")
        if others := [name for name in left if name not in self.options]:
            sentences.append(f"Bring the config into the form of the training for {', '.join(others)}.")
        if "class_names" in wrong and len(trained["class_names"]) != len(self.values["class_names"]):
            sentences.append("A model of other classes needs a training: pyraseg train --start_from FILE.")
        else:
            allowed = _text(list(dict.fromkeys(map(self._shown, wrong))))
            sentences.append(
                "If a difference is intended and the network stays the same (as many classes and input channels), add "
                f"--may_differ '{allowed}'."
            )
        return " ".join(sentences)

    def _shown(self, name: str) -> str:
        return self.options.get(name, name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

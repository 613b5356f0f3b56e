# SPDX-License-Identifier: Apache-2.0
"""Probabilities that mean what they say: one temperature, fitted on validation and kept beside the weights."""

import json
import logging
from collections.abc import Hashable, Mapping
from pathlib import Path

from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from bundle.pyraseg.core import PyrasegError, file_digest, replacing

logger = logging.getLogger(__name__)


def temperature_path(model_file: str | Path) -> Path:
    """Return where the temperature of a model is kept: `models/model.temperature.json` of `models/model.pt`."""
    return Path(model_file).with_suffix(".temperature.json")


def write_temperature(model_file: str | Path, temperature: float, **about: object) -> Path:
    """Write the temperature of the weights in `model_file`, with what else is to be known of it; return the path."""
    path = temperature_path(model_file)
    content = {"temperature": temperature, "weights_sha256": file_digest(model_file), **about}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def read_temperature(model_file: str | Path) -> float | None:
    """Return the temperature of the weights in `model_file`, or None where none was fitted to them.

    One that was fitted to other weights is told and not used: it would make probabilities wrong in silence.

    Raises:
        PyrasegError: the file holds no temperature, or there are no weights.
    """
    path = temperature_path(model_file)
    if not path.is_file():
        return None
    if not Path(model_file).is_file():
        raise PyrasegError(f"There are no weights at {model_file} that the temperature in {path} could belong to.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        temperature, digest = float(content["temperature"]), content["weights_sha256"]
        if not 0 < temperature < float("inf"):
            raise ValueError(f"it is {temperature}")
    except (ValueError, KeyError, TypeError) as error:
        raise PyrasegError(
            f"{path} holds no temperature ({error}). Remove it, or fit it again: `calibrating`."
        ) from error
    if digest != file_digest(model_file):
        logger.warning("%s belongs to other weights and is not used: fit it again with `calibrating`.", path)
        return None
    return temperature


def soften(probabilities: Tensor, temperature: float, *, dim: int) -> Tensor:
    """Return softmax(log p / T) along `dim` (Guo et al., ICML 2017, eq. 9): which class is largest does not change.

    Of probabilities as they left the softmax this is the softmax of the logits over T. Applied to probabilities that
    were resampled since, it keeps their argmax, which a temperature before the resampling would not.
    """
    powers = probabilities.float() ** (1 / temperature)
    return powers / powers.sum(dim=dim, keepdim=True)


class TemperatureScaled(MapTransform):
    """Apply the temperature that was fitted to a model to its probabilities, (C, W, H[, D]); none leaves them alone.

    Args:
        keys: of the probabilities, on any grid.
        model_file: weights that made them; the temperature lies beside, see `temperature_path`.
        allow_missing_keys: skip keys that are not in the data.
    """

    def __init__(self, keys: KeysCollection, *, model_file: str | Path, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.model_file = model_file
        self._temperature: list[
            float | None
        ] = []  # read with the first case: a config is parsed before a model is there

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        if not self._temperature:
            self._temperature.append(read_temperature(self.model_file))
        (temperature,) = self._temperature
        if temperature is None:
            return dict(data)
        return {**data, **{key: soften(data[key], temperature, dim=0) for key in self.key_iterator(data)}}

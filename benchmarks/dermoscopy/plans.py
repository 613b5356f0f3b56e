# SPDX-License-Identifier: Apache-2.0
"""Training plans that are compared: the config's stages, all of it in one, and the same with the encoder frozen."""

from collections.abc import Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser

from benchmarks.dermoscopy.trials import CONFIGS


def plans(stages: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return overrides of the config by plan, derived from its stages.

    The plans of one stage take the largest rate that each part has in any stage, and end as the last stage does.
    """
    rates: dict[str, float] = {}
    for stage in stages:
        rates |= {part: max(rate, rates.get(part, 0.0)) for part, rate in stage["rates"].items()}
    whole = {**stages[-1], "name": "all parts", "epochs": 1.0, "rates": rates}
    frozen = {part: rate for part, rate in rates.items() if not f"{part}.".startswith("encoder.")}
    return {
        "staged": {},
        "everything at once": {"plan#stages": [whole]},
        "encoder frozen throughout": {"plan#stages": [{**whole, "name": "new parts", "rates": frozen}]},
    }


def config_stages() -> list[dict[str, Any]]:
    """Return the stages of the dermoscopy config."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "dermoscopy.json")])
    return parser["plan#stages"]

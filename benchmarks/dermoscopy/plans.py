# SPDX-License-Identifier: Apache-2.0
"""Training plans that are compared: two stages, all of it in one, and the same with the encoder frozen."""

from collections.abc import Mapping, Sequence
from typing import Any


def plans(stages: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return overrides of the config by plan, derived from stages.

    The plans of one stage take the largest rate that each part has in any stage, and end as the last stage does.
    """
    rates: dict[str, float] = {}
    for stage in stages:
        rates |= {part: max(rate, rates.get(part, 0.0)) for part, rate in stage["learning_rates"].items()}
    whole = {**stages[-1], "name": "all parts", "epoch_fraction": 1.0, "learning_rates": rates}
    frozen = {part: rate for part, rate in rates.items() if not f"{part}.".startswith("encoder.")}
    return {
        "staged": {"plan#stages": list(stages)},
        "everything at once": {"plan#stages": [whole]},
        "encoder frozen throughout": {"plan#stages": [{**whole, "name": "new parts", "learning_rates": frozen}]},
    }


NEW_RATES = {"pyramid": 2e-3, "head": 2e-3}
PLANS = plans(
    [
        {"name": "new parts", "epoch_fraction": 0.15, "learning_rates": NEW_RATES},
        {
            "name": "all parts",
            "epoch_fraction": 0.85,
            "final_lr_factor": 0.02,
            "learning_rates": {"encoder": 1e-3, **NEW_RATES},
        },
    ]
)

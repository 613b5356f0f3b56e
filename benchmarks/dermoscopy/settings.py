# SPDX-License-Identifier: Apache-2.0
"""Settings of the dermoscopy task that were tried on its validation part."""

from typing import Any


def two_stages(first: float, encoder: float, rest: float, *, share: float = 0.25, **last: Any) -> dict[str, Any]:
    """Return the override of a plan: new parts at a rate for a share of the epochs, then all parts, falling to 2 %."""
    return {
        "plan#stages": [
            {"name": "new parts", "epochs": share, "rates": {"pyramid": first, "head": first}},
            {
                "name": "all parts",
                "epochs": 1 - share,
                "falls_to": 0.02,
                "rates": {"encoder": encoder, "pyramid": rest, "head": rest},
                **last,
            },
        ]
    }


#: Overrides of the config by name.
SETTINGS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "encoder 1e-3, rest 2e-3": two_stages(2e-3, 1e-3, 2e-3),
    "encoder 3e-4, rest 1e-3": two_stages(2e-3, 3e-4, 1e-3),
}

# SPDX-License-Identifier: Apache-2.0
"""Settings of the dermoscopy task that were tried on its validation part."""

from typing import Any


def two_stages(first: float, encoder: float, rest: float, *, share: float = 0.25, **last: Any) -> dict[str, Any]:
    """Return the override of a plan: new parts at a rate for a share of the epochs, then all parts, falling to 2 %."""
    return {
        "plan#stages": [
            {"name": "new parts", "epoch_fraction": share, "learning_rates": {"pyramid": first, "head": first}},
            {
                "name": "all parts",
                "epoch_fraction": 1 - share,
                "learning_rates": {"encoder": encoder, "pyramid": rest, "head": rest},
                **{"final_lr_factor": 0.02, **last},
            },
        ]
    }


def at_once(encoder: float, rest: float, **stage: Any) -> dict[str, Any]:
    """Return the override of a plan: all parts from the first epoch, rising at first, then falling to 2 %."""
    rates = {"encoder": encoder, "pyramid": rest, "head": rest}
    return {
        "plan#stages": [
            {
                "name": "all parts",
                "epoch_fraction": 1.0,
                "warm_up": 0.05,
                "final_lr_factor": 0.02,
                "learning_rates": rates,
                **stage,
            }
        ]
    }


KEPT = {"freeze_batch_norm": ["encoder"]}
RECIPE = two_stages(1e-3, 1e-5, 1e-4, share=0.5, final_lr_factor=1.0)
HIGH = two_stages(2e-3, 1e-3, 2e-3)
MIDDLE_KEPT = two_stages(2e-3, 3e-4, 1e-3, **KEPT)
CROSS_ENTROPY = {"loss": {"_target_": "bundle.pyraseg.networks.DiceCELoss", "include_background": False, "batch": True}}
DEFORM = {
    "_target_": "bundle.pyraseg.transforms.RandDeformd",
    "keys": ["image", "label"],
    "prob": 0.8,
    "rotation": 45,
    "scale": 0.3,
    "translation": 0.1,
    "elastic_magnitude": 6,
    "elastic_spacing": 32,
    "mode": ["bilinear", "nearest"],
}
DEFORMED = {"train#augmentation#transforms#2": DEFORM}
AT_ONCE = at_once(1e-3, 2e-3) | {"batch_size": 8}
#: Overrides of the config by name; each says all that the others have otherwise.
SETTINGS: dict[str, dict[str, Any]] = {
    name: {"batch_size": 16, **overrides}
    for name, overrides in {
        "encoder 1e-5, rest 1e-4": RECIPE,
        "encoder 1e-3, rest 2e-3": HIGH,
        "encoder 3e-4, rest 1e-3": two_stages(2e-3, 3e-4, 1e-3),
        "encoder 1e-3, rest 2e-3, statistics kept": two_stages(2e-3, 1e-3, 2e-3, **KEPT),
        "encoder 3e-4, rest 1e-3, statistics kept": MIDDLE_KEPT,
        "encoder 1e-4, rest 1e-3, statistics kept": two_stages(2e-3, 1e-4, 1e-3, **KEPT),
        "encoder 1e-5, rest 1e-4, statistics kept": two_stages(
            1e-3, 1e-5, 1e-4, share=0.5, final_lr_factor=1.0, **KEPT
        ),
        "encoder 3e-4, rest 1e-3, statistics kept, cross entropy": MIDDLE_KEPT | CROSS_ENTROPY,
        "encoder 3e-4, rest 1e-3, statistics kept, deformed": MIDDLE_KEPT | DEFORMED,
        "encoder 1e-3, rest 2e-3, batches of 8": HIGH | {"batch_size": 8},
        "encoder 3e-4, rest 1e-3, statistics kept, batches of 8": MIDDLE_KEPT | {"batch_size": 8},
        "at once, encoder 1e-3, rest 2e-3, batches of 8": AT_ONCE,
        "at once, encoder 1e-3, rest 2e-3, batches of 8, averaged": AT_ONCE | {"ema_decay": 0.99},
        "at once, encoder 1e-3, rest 2e-3, batches of 8, deformed": AT_ONCE | DEFORMED,
        "at once, encoder 3e-4, rest 1e-3, batches of 8": at_once(3e-4, 1e-3) | {"batch_size": 8},
    }.items()
}

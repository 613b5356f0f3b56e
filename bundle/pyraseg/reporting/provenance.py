# SPDX-License-Identifier: Apache-2.0
"""What data, split, weights and versions an evaluation was made of, in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import file_digest

#: What `evaluation.json` holds of what is told here.
RECORDED = ("dataset", "weights", "split", "revision", "versions", "seed", "config")
#: Options that tell about the machine or are prose, not about the model.
LEFT_OUT = ("_dir", "_file", "_root", "_uri", "remedy")


def provenance(made_of: Mapping[str, Any], summary: Mapping[str, Any], training: Path | None) -> dict[str, dict]:
    """Return headings with names and values to read.

    Args:
        made_of: content of `evaluation.json`; empty where there is none.
        summary: of the evaluation.
        training: folder of the training whose log is shown; whether it gave the weights is told.
    """
    settings = {name.replace("_", " "): _text(value) for name, value in summary["settings"].items()}
    evaluated = {"cases": summary["cases"], "patients": summary["patients"]}
    if summary.get("unit") == "cases":
        evaluated["patients"] = "not named by the data list"
    if not made_of:
        missing = "not recorded: there is no evaluation.json"
        return {"Data": evaluated, "Weights": {"": missing}, "Figures": settings}
    split, weights = made_of["split"], made_of["weights"]
    parts = ", ".join(f"{count} {part}" for part, count in split.items() if part != "hash")
    origin = {} if training is None else {"origin": _origin(weights["sha256"], training)}
    temperature = summary.get("calibration", {}).get("temperature")
    return {
        "Data": {
            "data set": made_of["dataset"],
            "split": f"{split['hash']} ({parts} cases)",
            "evaluated": made_of["config"].get("validate#dataset#data", "a list of cases").lstrip("$@"),
            **evaluated,
        },
        "Weights": {
            "file": weights["file"],
            "SHA-256": weights["sha256"],
            "temperature": "none" if temperature is None else f"{temperature:.3f}",
            **origin,
        },
        "Software": {"revision": made_of["revision"], **made_of["versions"]},
        "Figures": settings,
        "Options": _options(made_of["config"]) | {"seed": made_of["seed"]},
    }


def _origin(digest: str, training: Path) -> str:
    best = training / "best.pt"
    if not best.is_file():
        return "unknown: the training has no best.pt any more, so its curves may be of other weights"
    if file_digest(best) == digest:
        return "best epoch of the training whose curves are shown"
    return "not the training whose curves are shown: its best.pt are other weights"


def _options(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the knobs of the config: neither its components nor what names a place on the machine."""
    components = {key.partition("#")[0] for key in config if key.endswith("_target_")}
    knobs = {}
    for key, value in config.items():
        name = key.partition("#")[0]
        written = str(value).startswith(("/", "~", "$", "@", "%")) or ":\\" in str(value)
        if name not in components and not name.endswith(LEFT_OUT) and not written and value is not None:
            knobs[key.replace("#", " ")] = _text(value)
    return knobs


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)

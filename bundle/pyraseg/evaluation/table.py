# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation as files: case by case as CSV, together as JSON."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data import MetaTensor
from torch import Tensor

from bundle.pyraseg.core import PyrasegError, at_failure, hold, release, write_csv, write_text
from bundle.pyraseg.datalists import case_names
from bundle.pyraseg.evaluation.calibration import BoundaryCalibration
from bundle.pyraseg.evaluation.cases import LESIONS, METRICS, SIZES, CaseScorer
from bundle.pyraseg.evaluation.summary import POLICY, by_column, mean_dice_of_cases, risk_coverage, summarize_rows
from bundle.pyraseg.evaluation.text import format_summary
from bundle.pyraseg.inference import mean_uncertainty
from bundle.pyraseg.labels import annotated_classes
from bundle.pyraseg.transforms import geometry_of

logger = logging.getLogger(__name__)

#: What holds the folder of an evaluation.
WORK = "evaluation"

#: Raised by one when a reader of summary.json would no longer understand it.
FORMAT = 1
#: Columns that the tables have beside figures.
OWN = ("case", "class", "patient", "lesion", "covered", "found", "uncertainty")


class CaseTable:
    """The rows of all cases, and what they come to.

    Args:
        scorer: of the cases.
        by: columns of the data list (and "size") whose values get figures of their own.
        resamples: draws of every bootstrap.
    """

    def __init__(self, scorer: CaseScorer, *, by: Sequence[str] = (), resamples: int = 10_000) -> None:
        self.scorer = scorer
        self.by = list(by)
        self.resamples = resamples
        self.rows: list[dict[str, Any]] = []
        self.lesions: list[dict[str, Any]] = []
        self._patients: dict[str, str] = {}
        self._known = True

    def add(self, name: str, case: Mapping[str, Any], prediction: Tensor, truth: Tensor, image: MetaTensor) -> None:
        """Score a case.

        Args:
            name: of the case.
            case: its item of the data list. Its patient is replaced by a number, since the list may name persons. Of
                classes that it was not annotated for there are no rows.
            prediction: class indices, (1, W, H[, D]).
            truth: the same.
            image: as it was read, for the geometry.
        """
        patient = self._patients.setdefault(case.get("patient", name), f"p{len(self._patients) + 1}")
        self._known = self._known and case.get("patient_known", "patient" in case)
        known = {"case": name, "patient": patient, **{column: case.get(column) for column in self.columns}}
        annotated = annotated_classes(case, self.scorer.class_names)
        rows, lesions = self.scorer.score(prediction, truth, geometry_of(image), annotated.tolist())
        self.rows += [known | row for row in rows]
        for class_name, detection in lesions.items():
            for number, (size, covered, found) in enumerate(
                zip(detection.sizes, detection.covered, detection.found, strict=True), start=1
            ):
                of_lesion = {"class": class_name, "lesion": number, "size": float(size), "covered": float(covered)}
                self.lesions.append(known | of_lesion | {"found": int(found)})

    @property
    def columns(self) -> list[str]:
        """Return the columns that come from the data list."""
        return [column for column in self.by if column != "size"]

    def summary(self) -> dict[str, Any]:
        """Return the figures of all cases as plain values; NaN is None."""
        cases, names = len({row["case"] for row in self.rows}), self.scorer.names
        found: dict[str, Any] = {
            "format": FORMAT,
            "cases": cases,
            "patients": len(self._patients),
            "unit": "patients" if self._known else "cases",
            "policy": POLICY,
            "settings": {
                "lesion_classes": list(self.scorer.lesion_classes),
                "surface_tolerance_mm": self.scorer.tolerance,
                "lesion_overlap": self.scorer.lesion_overlap,
                "iou_threshold": self.scorer.iou_threshold,
                "thin_classes": list(self.scorer.thin_classes),
                "resamples": self.resamples,
            },
            **summarize_rows(self.rows, self.lesions, names, resamples=self.resamples),
        }
        for of in found["classes"].values():
            of["not_annotated"] = cases - of["cases"] - of["absent"]
        found["by"] = {
            column: by_column(self.rows, self.lesions, names, column, resamples=self.resamples) for column in self.by
        }
        return found


class ScoreTable:
    """Score every case of an evaluation, write `scores.csv`, `summary.json` and more, and print the means.

    docs/evaluation.md says what the files hold. Attach it to the evaluator.

    Args:
        output_dir: folder of the files.
        cases: items of the data list, in the order of the evaluation.
        dataset_dir: cases are named by the path of their image below it, see `case_names`.
        scorer: of the cases.
        calibration: gathers the probabilities that the evaluator keeps under `probabilities`; None leaves them alone.
        by: columns of the data list (and "size") whose values get figures of their own.
        resamples: draws of every bootstrap.

    Raises:
        PyrasegError: `by` names a column that no case has.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        cases: Sequence[dict],
        dataset_dir: str | Path,
        scorer: CaseScorer,
        calibration: BoundaryCalibration | None = None,
        by: Sequence[str] = (),
        resamples: int = 10_000,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.cases = list(cases)
        self.names = case_names(cases, dataset_dir)
        self.scorer = scorer
        self.calibration = calibration
        self.by = list(by)
        check_columns(self.by, self.cases)
        self.resamples = resamples

    def attach(self, engine: Engine) -> None:
        ProgressBar(desc="Evaluating", disable=None).attach(engine)
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self)
        at_failure(engine, lambda: release(self.output_dir, WORK))

    def start(self, engine: Engine) -> None:
        """Forget the cases of an evaluation before, and hold the folder, whose files belong together."""
        hold(self.output_dir, WORK)
        self.table = CaseTable(self.scorer, by=self.by, resamples=self.resamples)
        self.uncertainties: dict[str, float] = {}
        self.done = 0
        if self.calibration is not None:
            self.calibration.start()

    def add(self, engine: Engine) -> None:
        """Score the cases of an iteration."""
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            name, case = self.names[self.done], self.cases[self.done]
            prediction, truth, geometry = output["pred"], output["truth"], geometry_of(batch["original"])
            self.table.add(name, case, prediction, truth, batch["original"])
            annotated = annotated_classes(case, self.scorer.class_names)
            if self.calibration is not None:
                self.calibration.add(output["probabilities"], prediction, truth, geometry, annotated.tolist())
            if "uncertainty" in output:  # of its classes, by `inference.Uncertainty`
                scored = torch.from_numpy(self.scorer.structures.annotated(annotated))[1:]
                of_classes = output["uncertainty"][scored.to(output["uncertainty"].device)]
                self.uncertainties[name] = mean_uncertainty(of_classes)
                for row, uncertainty in zip(self.table.rows[-len(of_classes) :], of_classes.tolist(), strict=True):
                    row["uncertainty"] = uncertainty
            self.done += 1

    def __call__(self, engine: Engine) -> None:
        """Write the files, and let others have the folder."""
        if self.done != len(self.cases):
            raise RuntimeError(f"{self.done} of {len(self.cases)} cases were evaluated: their names would be wrong.")
        summary = self.table.summary()
        if self.calibration is not None:
            summary["calibration"] = self.calibration.summary()
        columns = ["patient", *self.table.columns]
        scores = ["case", "class", *METRICS, *SIZES, *LESIONS, *["uncertainty"] * bool(self.uncertainties), *columns]
        write_csv(self.output_dir / "scores.csv", scores, self.table.rows)
        if self.scorer.lesion_classes:
            lesions = ["case", "class", "lesion", "size", "covered", "found", *columns]
            write_csv(self.output_dir / "lesions.csv", lesions, self.table.lesions)
        if self.uncertainties:
            summary["uncertainty"] = self._review()
        write_text(self.output_dir / "summary.json", json.dumps(plain(summary), indent=1, allow_nan=False) + "\n")
        print(format_summary(summary))
        logger.info("Scores of %d cases, and their summary, are in %s", len(self.cases), self.output_dir)
        release(self.output_dir, WORK)

    def _review(self) -> dict[str, Any]:
        """Write the cases in the order in which a person should look at them; return what the order is worth."""
        dice = mean_dice_of_cases(self.table.rows)
        order = sorted(self.uncertainties, key=self.uncertainties.__getitem__, reverse=True)
        rows = [{"case": name, "uncertainty": self.uncertainties[name], "dice": dice[name]} for name in order]
        write_csv(self.output_dir / "review.csv", ["case", "uncertainty", "dice"], rows)
        scored = [row for row in rows if not math.isnan(row["dice"])]
        pairs = [[row["uncertainty"] for row in scored], [1 - row["dice"] for row in scored]]
        return (risk_coverage(*pairs) if scored else {}) | {"review": order}


def check_columns(by: Sequence[str], cases: Sequence[Mapping[str, Any]]) -> None:
    """Refuse columns that there can be no figures by, before anything is computed.

    Raises:
        PyrasegError: no case has the column, or it has the name of a figure or of what `CaseTable` writes itself.
    """
    for column in by:
        if column in (*OWN, *METRICS, *SIZES, *LESIONS):
            raise PyrasegError(
                f"There are no figures by {column!r}: `by` takes other columns of the data list, and size."
            )
        if column != "size" and all(case.get(column) is None for case in cases):
            raise PyrasegError(
                f"Figures by {column!r} were requested, but no case of the data list has it. Add it to the items of "
                "datalist.json, or take it out of `by`."
            )


def plain(value: Any) -> Any:
    """Return nested values with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(of) for key, of in value.items()}
    if isinstance(value, list):
        return [plain(of) for of in value]
    return None if isinstance(value, float) and math.isnan(value) else value

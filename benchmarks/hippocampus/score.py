# SPDX-License-Identifier: Apache-2.0
"""Score the label maps of finished runs, keep the figures, and write the table of docs/volumes.md.

python -m benchmarks.hippocampus.score data/mr_hippocampus runs/peers/VolumePSPNet_60min_seed0
python -m benchmarks.hippocampus.score data/mr_hippocampus

Any folder that holds what `benchmarks.hippocampus.study` describes can be scored, whatever made it. Dice is that of
every case and class on the grid of the image, intervals are over patients. Each run is compared with ours of the same
minutes and seed, case by case. Without a run, the table is written from what was kept before.
"""

import argparse
import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from benchmarks.hippocampus.study import CLASS_NAMES, PREDICTED, label_file, read_run, read_split
from bundle.pyraseg.core import PyrasegError, write_csv
from bundle.pyraseg.evaluation import count_overlap, difference_interval, mean_interval, ratios
from bundle.pyraseg.workflow import plain_console
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "hippocampus"
PAGE = ROOT / "docs" / "volumes.md"
MARKER = "hippocampus"
OURS = "VolumePSPNet"
NOTHING = "Nothing was kept of this comparison yet."
CLASSES = CLASS_NAMES[1:]
COLUMNS = ["case", *CLASSES]
HEADER = [
    "network", "minutes", "steps x batch", "parameters", "test Dice", *CLASSES, "validation Dice",
    f"{OURS} minus this, test", "s a volume",
]  # fmt: skip


def dice_of(predicted: Path, truth: Path) -> list[float]:
    """Return the Dice of every class but the background between two label maps on one grid; 0 / 0 is NaN.

    Raises:
        PyrasegError: a file is absent, the grids differ, or there is a label that is no class.
    """
    if not predicted.is_file():
        raise PyrasegError(f"There is no label map {predicted}: the run did not predict this case.")
    found, true = nibabel.load(predicted), nibabel.load(truth)
    if found.shape != true.shape or not np.allclose(found.affine, true.affine, atol=1e-3):
        raise PyrasegError(
            f"{predicted} is of shape {found.shape} and does not lie on the grid of {truth}, which is {true.shape}."
        )
    maps = [np.asanyarray(image.dataobj) for image in (found, true)]
    for path, values in zip((predicted, truth), maps, strict=True):
        if not np.isin(values, range(len(CLASS_NAMES))).all():
            raise PyrasegError(f"{path} holds other values than 0 to {len(CLASSES)}: {np.unique(values)[:8].tolist()}.")
    prediction, label = (torch.from_numpy(values.astype(np.uint8)) for values in maps)
    return ratios(count_overlap(prediction, label, len(CLASS_NAMES)))[:, 0].tolist()


def keep(run: Path, dataset_dir: Path, results: Path = RESULTS) -> Path:
    """Score a run, and keep its record and the Dice of every case; return the folder.

    Raises:
        PyrasegError: the run is not finished, is of another split, or what `dice_of` raises.
    """
    record = read_run(run)
    cases, split = read_split(dataset_dir)
    if record["split"] != split:
        raise PyrasegError(
            f"{run} is of the split {record['split']['hash']}, the data in {dataset_dir} of {split['hash']}: train on "
            "these data again."
        )
    rows = {
        part: [[case, *dice_of(label_file(run, part, case), label)] for case, (_, label) in sorted(cases[part].items())]
        for part in PREDICTED
    }
    name = f"{record['name']}_{record['minutes']:g}min_seed{record['seed']}"
    folder = results / re.sub(r"[^\w.+-]+", "_", name)
    folder.mkdir(parents=True, exist_ok=True)
    for part, of_part in rows.items():
        write_csv(folder / f"{part}.csv", COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in of_part])
    (folder / "run.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return folder


def kept(results: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the records of all runs that were kept, each with the names and the Dice of the cases of every part.

    Raises:
        PyrasegError: runs are of different splits.
    """
    records = []
    for path in sorted(results.glob("*/run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for part in PREDICTED:
            with path.with_name(f"{part}.csv").open(encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            scores = [[float(row[name]) if row[name] else np.nan for name in CLASSES] for row in rows]
            record[part] = [row["case"] for row in rows], np.array(scores)
        records.append(record)
    hashes = {record["split"]["hash"] for record in records}
    if len(hashes) > 1:
        raise PyrasegError(f"The runs in {results} are of different splits, {sorted(hashes)}: keep one alone.")
    return records


def compare(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean Dice by part and class of every run, with intervals, and its difference to ours, as plain values.

    The difference is ours minus the run, of our network with the same minutes and seed; absent where there is none.
    """
    ours = {(record["minutes"], record["seed"]): record for record in records if record["name"] == OURS}
    found = []
    for record in sorted(records, key=lambda one: (one["minutes"], one["name"] != OURS, one["name"], one["seed"])):
        row: dict[str, Any] = {key: record[key] for key in ("name", "minutes", "seed")}
        base = ours.get((record["minutes"], record["seed"]))
        for part in PREDICTED:
            cases, scores = record[part]
            row[part] = {"mean": vars(mean_interval(scores))}
            row[part] |= {name: vars(mean_interval(scores[:, index])) for index, name in enumerate(CLASSES)}
            if base is not None and base is not record:
                assert base[part][0] == cases  # one split, see `kept`
                row[f"{OURS} minus this, {part}"] = vars(difference_interval(base[part][1], scores))
        found.append(row)
    return found


def table(results: Path = RESULTS) -> str:
    """Return the table of the docs."""
    records = kept(results)
    if not records:
        return NOTHING
    lines = ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
    of_run = {(record["name"], record["minutes"], record["seed"]): record for record in records}
    for row in compare(records):
        record = of_run[row["name"], row["minutes"], row["seed"]]
        training, difference = record["training"], row.get(f"{OURS} minus this, test")
        cells = [row["name"], f"{training['processor_minutes']:.1f}"]
        cells += [f"{training['steps']} x {training['batch_size']}", f"{training['parameters'] / 1e6:.1f} M"]
        cells += [_text(row["test"][name]) for name in ("mean", *CLASSES)] + [_text(row["validation"]["mean"])]
        cells += ["" if difference is None else _text(difference, sign="+")]
        cells += [f"{record['seconds_a_volume']['processor_seconds']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    split, first = records[0]["split"], records[0]
    versions = first["training"]["versions"]
    lines += ["", f"{split['training']} training, {split['validation']} validation and {split['test']} test cases, "
              f"split `{split['hash']}`; one thread of {first['processor']}, torch {versions['torch']}."]  # fmt: skip
    return "\n".join(lines)


def _text(interval: dict[str, float], *, sign: str = "") -> str:
    return "{:{s}.3f} [{:{s}.3f}, {:{s}.3f}]".format(*(interval[key] for key in ("mean", "low", "high")), s=sign)


def main(argv: list[str] | None = None) -> None:
    plain_console()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path, help="folder with images/ and labels/")
    parser.add_argument("runs", type=Path, nargs="*", help="folders of finished runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args(argv)
    for run in given.runs:
        print(f"Kept: {keep(run, given.dataset_dir, given.results)}")
    compared = compare(kept(given.results))
    if compared:
        (given.results / "compared.json").write_text(json.dumps(compared, indent=1) + "\n", encoding="utf-8")
    page = given.page.read_text(encoding="utf-8")
    given.page.write_text(replace_between_markers(page, MARKER, table(given.results)), encoding="utf-8")


if __name__ == "__main__":
    main()

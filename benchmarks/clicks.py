# SPDX-License-Identifier: Apache-2.0
"""Measure how many clicks a mask takes: Dice against the number of clicks, beside the simplest rival.

The user is simulated (`bundle.pyraseg.evaluation.SimulatedUser`): at each turn, it looks at the mask on the grid that
the network sees, and clicks the pixel that lies deepest inside of the largest connected error. It stops where there is
none left. Dice is computed on the grid of the input. There are these ways to answer the clicks, each with a user of its
own, who clicks where this way errs:

- network: the included network for clicks;
- sloppy: the same, and every click misses its place by 5 pixels of the network's grid, in a random direction;
- box: the same, and a box around all that is meant, whose edges miss it by up to 10 % of its sides, is the first click;
- random walker: the plain network's probability map, cut by scikit-image's `random_walker`. Its seeds are the discs of
  the clicks and those pixels whose probability is sure, but near clicks of the other kind, see `RIVAL`.

Run ``python -m benchmarks.clicks dermoscopy --data data/dermoscopy`` from the repository root: it takes half an hour of
one thread. ``python -m benchmarks.clicks`` writes the tables of docs/clicks.md from the results.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from skimage.segmentation import random_walker
from torch import Tensor
from tqdm import tqdm

from benchmarks.networks import processor
from bundle.pyraseg.core import PyrasegError, file_digest, task_files, write_json
from bundle.pyraseg.datalists import split_hash
from bundle.pyraseg.evaluation import SimulatedUser, mean_interval
from bundle.pyraseg.networks import ClickNetwork
from bundle.pyraseg.runtime import RADIUS
from bundle.pyraseg.training import read_click_network, sloppy_box
from bundle.pyraseg.transforms import UNKNOWN, InvertArgmaxd
from bundle.pyraseg.workflow import read_config
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "clicks"
PAGE = ROOT / "docs" / "clicks.md"

SEED = 20261130
CLICKS = 20
BARS = (0.85, 0.90, 0.95)
#: Pixels by which sloppy clicks miss.
SLOPPY = 5.0
#: The rival's settings, chosen on validation of dermoscopy: a probability that is sure, the stiffness of the walk, and
#: the distance from a click at which seeds of the other kind are left out, in pixels.
RIVAL = {"sure": 0.9, "beta": 1000.0, "cleared": 12}
WAYS = ("network", "sloppy", "box", "random walker")
#: What answers: from the user's prompts and the last probabilities (W, H) to the next ones.
Answer = Callable[[SimulatedUser, np.ndarray], np.ndarray]


class Image:
    """One image of the study as the network sees it, one of its classes, and the way back to the input's grid.

    Args:
        data: what the preprocessing gave: "image" (C, W, H[, 1]), "label", and "label_before" on the input's grid.
        number: of the class.
        invert: from probabilities to labels on the input's grid.

    Raises:
        PyrasegError: the image is a volume of several slices.
    """

    def __init__(self, data: Mapping[str, Any], number: int, invert: InvertArgmaxd) -> None:
        self.data, self.invert = data, invert
        image = data["image"]
        self.is_slice = image.ndim == 4
        if self.is_slice and image.shape[3] != 1:
            raise PyrasegError(f"Clicks are measured on images and single slices, and this one has {image.shape[3]}.")
        self.shown = as_tensor(image[..., 0] if self.is_slice else image)[None].float()
        label = as_tensor(data["label"]).numpy()[0]
        label = label[..., 0] if self.is_slice else label
        self.truth, self.known = label == number, label != UNKNOWN
        before = as_tensor(data["label_before"]).numpy()
        self.meant, self.counted = before == number, before != UNKNOWN

    def dice(self, probability: np.ndarray) -> float:
        """Return the Dice of a probability map (W, H) on the input's grid, where the truth is known."""
        both = torch.from_numpy(np.stack([1 - probability, probability]).astype(np.float32))
        both = both[..., None] if self.is_slice else both
        found = self.invert({"pred": both, "image": self.data["image"]})["pred"].numpy() == 1
        found, meant = found & self.counted, self.meant & self.counted
        return float(2 * (found & meant).sum() / max(1, found.sum() + meant.sum()))

    def curve(self, plain: np.ndarray, answer: Answer, user: SimulatedUser, clicks: int) -> list[float]:
        """Return the Dice after 0, 1, ... clicks, from the plain network's probabilities on."""
        last, found = plain, [self.dice(plain)]
        for number in range(clicks):
            began = number == 0 and user.box is not None
            if not began and not user.click(last > 0.5):
                return found + found[-1:] * (clicks - number)
            last = answer(user, last)
            found.append(self.dice(last))
        return found


def as_tensor(values: Any) -> Tensor:
    return torch.as_tensor(values).as_subclass(Tensor)


def by_network(network: ClickNetwork, features: Sequence[Tensor], plain: Tensor) -> Answer:
    """Return what the network answers."""

    def answer(user: SimulatedUser, last: np.ndarray) -> np.ndarray:
        prompts = torch.from_numpy(user.prompts(last))[None]
        return network.refine(plain, *features, prompts).sigmoid()[0, 0].numpy()

    return answer


def by_random_walker(plain: np.ndarray, *, sure: float, beta: float, cleared: int) -> Answer:
    """Return what a random walker on the plain network's probabilities (W, H) answers."""
    columns, rows = np.indices(plain.shape)

    def near(clicks: Sequence[tuple], radius: float) -> np.ndarray:
        found = np.zeros(plain.shape, bool)
        for column, row, _ in clicks:
            found |= (columns - column) ** 2 + (rows - row) ** 2 <= radius**2
        return found

    def answer(user: SimulatedUser, last: np.ndarray) -> np.ndarray:
        kinds = [[click for click in user.clicks if click[2] is kind] for kind in (True, False)]
        inside, outside = near(kinds[0], cleared), near(kinds[1], cleared)
        seeds = np.zeros(plain.shape, int)
        seeds[(plain > sure) & ~outside] = 1
        seeds[(plain < 1 - sure) & ~inside] = 2
        for column, row, is_foreground in user.clicks:
            seeds[near([(column, row, is_foreground)], RADIUS)] = 1 if is_foreground else 2
        if len(np.unique(seeds[seeds > 0])) < 2:
            return (seeds == 1).astype(np.float32) if (seeds > 0).any() else last
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seeds that enclose all the rest
            found = random_walker(plain, seeds, beta=beta, mode="cg_j", tol=1e-3)
        return (found == 1).astype(np.float32)

    return answer


def images_of(config: Any, part: str, limit: int | None) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the patient and the preprocessed data of each case of a part of the split."""
    cases = config.get_parsed_content("cases")[part]
    if limit is not None:
        cases = [cases[index] for index in sorted(np.random.default_rng(SEED).permutation(len(cases))[:limit])]
    preprocessing: Compose = config.get_parsed_content("validate#preprocessing")
    for number, case in enumerate(tqdm(cases, desc="Images", disable=None)):
        yield number, case["patient"], preprocessing(case)


def measure(
    task: str, data: Path, *, part: str, model: Path, ways: Sequence[str], clicks: int, limit: int | None
) -> dict[str, Any]:
    """Return the curves of all images of a part of the split, and what they were made with."""
    plain_task = task.removesuffix("_click")
    files = task_files(ROOT / "configs", "train", f"{plain_task}_click")
    config = read_config(files, {"dataset_dir": str(data), "num_workers": 0, "device": "cpu", "record": None})
    plain_config = read_config(task_files(ROOT / "configs", "train", plain_task), {"dataset_dir": str(data)})
    network, _ = read_click_network(model)
    names = config.get_parsed_content("class_names")
    invert = InvertArgmaxd("pred", transform=config.get_parsed_content("validate#preprocessing"), orig_keys="image")
    inferer = plain_config.get_parsed_content("validate#inferer")
    curves: dict[str, list] = {way: [] for way in ways}
    patients, flipped, unprompted, start = [], [], [], time.process_time()
    with torch.inference_mode():
        for place, patient, case in images_of(config, part, limit):
            for number in range(1, len(names)):
                image = Image(case, number, invert)
                if not image.truth.any():
                    continue
                class_index = torch.tensor([number])
                logits, *features = network.look(image.shown)
                odds = network.log_odds_of(logits, class_index)
                plain = odds.sigmoid()[0, 0].numpy()
                none = torch.zeros(1, 5, *plain.shape)
                unprompted.append(bool(network.refine(odds, *features, none).equal(odds)))
                whole = image.shown[..., None] if image.is_slice else image.shown
                several = inferer(whole, network.plain).softmax(dim=1)[0, number]
                flipped.append(image.dice((several[..., 0] if image.is_slice else several).numpy()))
                patients.append(patient)
                for way in ways:
                    random = np.random.default_rng([SEED, place, number])
                    box = sloppy_box(image.truth, random) if way == "box" else None
                    jitter = (SLOPPY, SLOPPY) if way == "sloppy" else (0.0, 0.0)
                    user = SimulatedUser(image.truth, known=image.known, random=random, jitter=jitter, box=box)
                    by = by_network(network, features, odds)
                    if way == "random walker":
                        by = by_random_walker(plain, **RIVAL)
                    curves[way].append(image.curve(plain, by, user, clicks))
    return {
        "task": plain_task,
        "part": part,
        "images": len(patients),
        "patients": len(set(patients)),
        "split": split_hash(config.get_parsed_content("cases")),
        "seed": SEED,
        "clicks": clicks,
        "model_sha256": file_digest(model),
        "processor": processor(),
        "processor_minutes": round((time.process_time() - start) / 60, 1),
        "versions": {name: version(name) for name in ("torch", "monai", "scikit-image", "scipy", "numpy")},
        "rival": RIVAL,
        "unprompted_equal": all(unprompted),
        "plain_with_flips": interval(flipped, patients),
        "ways": {way: summary(np.array(curves[way]), patients) for way in ways},
    }


def interval(values: Sequence[float] | np.ndarray, patients: Sequence[str]) -> list[float]:
    """Return the mean, and the bounds of its interval over patients."""
    found = mean_interval(values, patients=patients)
    return [round(value, 4) for value in (found.mean, found.low, found.high)]


def summary(curves: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    """Return the mean Dice after each number of clicks, and how many clicks each bar takes, with intervals.

    An image that never reaches a bar counts with the largest number of clicks; their share is stated.
    """
    dice = [interval(curves[:, number], patients) for number in range(curves.shape[1])]
    bars = {}
    for bar in BARS:
        reached = curves >= bar
        first = np.where(reached.any(axis=1), reached.argmax(axis=1), curves.shape[1] - 1)
        bars[f"{bar:.2f}"] = {"clicks": interval(first, patients), "never": round(float((~reached.any(1)).mean()), 4)}
    return {"dice": dice, "bars": bars}


def tables(report: Mapping[str, Any]) -> str:
    """Return the table of a report in Markdown."""
    shown = sorted({number for number in (0, 1, 2, 3, 5, 10) if number <= report["clicks"]} | {report["clicks"]})
    head = ["Dice after clicks", *map(str, shown)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for way, found in report["ways"].items():
        cells = [f"{found['dice'][number][0]:.3f}" for number in shown]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    head = ["clicks to a Dice of, share never", *(bar for bar in next(iter(report["ways"].values()))["bars"])]
    lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for way, found in report["ways"].items():
        cells = [
            f"{bar['clicks'][0]:.1f} [{bar['clicks'][1]:.1f}, {bar['clicks'][2]:.1f}], {100 * bar['never']:.0f} %"
            for bar in found["bars"].values()
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    mean, low, high = report["plain_with_flips"]
    lines += [
        "",
        f"{report['images']} images of the {report['part']} part, {report['patients']} patients or photographs; split "
        f"`{report['split']}`, seed {report['seed']}.",
        f"One that never reaches a bar counts with {report['clicks']} clicks.",
        f"The plain model as its task evaluates it, with flips where it has them: {mean:.3f} [{low:.3f}, {high:.3f}].",
        f"Without a prompt the network's log-odds are the plain model's, bit by bit: {report['unprompted_equal']}.",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", help="such as dermoscopy; without one, tables are written from the results")
    parser.add_argument("--data", type=Path, help="folder of the task's data set")
    parser.add_argument("--part", default="test", choices=("validation", "test"), help="default: %(default)s")
    parser.add_argument("--model", type=Path, help="default: models/TASK_click.pt")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--clicks", type=int, default=CLICKS, help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="so many images, drawn at random")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/clicks/TASK.json")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose tables are replaced (default: %(default)s)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.task is not None:
        model = options.model or ROOT / "models" / f"{options.task}_click.pt"
        report = measure(
            options.task, options.data, part=options.part, model=model, ways=options.ways, clicks=options.clicks,
            limit=options.limit,
        )  # fmt: skip
        write_json(options.output or RESULTS / f"{options.task}.json", report)
        print(tables(report))
        return
    page = options.page.read_text(encoding="utf-8")
    for file in sorted(RESULTS.glob("*.json")):
        page = replace_between_markers(page, file.stem, tables(json.loads(file.read_text(encoding="utf-8"))))
    options.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

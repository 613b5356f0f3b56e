# SPDX-License-Identifier: Apache-2.0
"""Output folders of evaluations, made by the handlers of `evaluating` from cases with known masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scipy.ndimage import zoom

from bundle.pyraseg.evaluation.cases import CaseScorer
from bundle.pyraseg.evaluation.table import ScoreTable
from bundle.pyraseg.labels import annotated_classes
from bundle.pyraseg.reporting.pictures import ROOM, CasePictures, draw_views

CLASSES = ["background", "liver", "lesion"]


@dataclass(frozen=True)
class Known:
    """A case: path of its image in the data set, patient, site, image, prediction and truth, (1, W, H[, D]).

    Where it was annotated for some classes only, their names.
    """

    name: str
    patient: str
    site: str
    image: MetaTensor
    prediction: torch.Tensor
    truth: torch.Tensor
    annotated: tuple[str, ...] | None = None


def volume(name: str, *, shift: int, lesion: str = "", site: str = "north", size: int = 24, depth: int = 8) -> Known:
    """Return a CT with a liver of slices 2 to 6 that is predicted `shift` voxels too far in x.

    Args:
        name: of the case; its patient is called alike.
        shift: of the prediction.
        lesion: "missed", "alarm" or "" for none.
        site: of the scanner.
        size: width; the height is four less.
        depth: slices of 4 mm, with pixels of 1 x 2 mm.
    """
    shape = (1, size, size - 4, depth)
    hu = torch.full(shape, -50.0)
    truth, prediction = torch.zeros(shape, dtype=torch.uint8), torch.zeros(shape, dtype=torch.uint8)
    truth[:, 4:12, 6:12, 2:7] = 1
    prediction[:, 4 + shift : 12 + shift, 6:12, 2:7] = 1
    hu[truth == 1] = 110
    if lesion == "missed":
        truth[:, 6:8, 7:9, 4] = 2
    if lesion == "alarm":
        prediction[:, 6:8, 7:9, 4] = 2
    image = MetaTensor(hu, affine=np.diag([-1.0, -2.0, 4.0, 1.0]))
    return Known(name, name, site, image, prediction, truth)


def photograph(name: str, *, shift: int, size: tuple[int, int] = (48, 36)) -> Known:
    """Return a photograph with a lesion (class 2) that is predicted `shift` pixels too low."""
    width, height = size
    truth, prediction = (torch.zeros(1, width, height, dtype=torch.uint8) for _ in range(2))
    truth[:, 10:30, 8:20] = 2
    prediction[:, 10:30, 8 + shift : 20 + shift] = 2
    image = MetaTensor(torch.full((3, width, height), 200.0))
    image[:, truth[0] == 2] = 60.0
    image.meta["spatial_shape"] = [width, height]
    return Known(name, name, "north", image, prediction, truth)


def large_views(seed: int, *, cases: int) -> dict:
    """Return the views of a noisy CT of 512 x 512 x 40 voxels with four ragged organs, one of `cases` cases."""
    random = np.random.default_rng(seed)
    ragged = zoom(random.normal(size=(32, 32, 10)), (16, 16, 4), order=1) * 0.1
    x, y, z = np.ogrid[-1:1:512j, -1:1:512j, -1:1:40j]
    truth = np.zeros((512, 512, 40), np.uint8)
    hu = 15 * random.standard_normal(truth.shape, np.float32) + np.where(x**2 + y**2 < 0.7, np.float32(20), -1000)
    for number, (left, top, radius) in enumerate([(-0.3, 0, 0.4), (-0.4, 0.1, 0.1), (0.5, 0, 0.2), (0.2, 0.4, 0.2)], 1):
        inside = (x - left) ** 2 + (y - top) ** 2 + 0.1 * z**2 < radius**2 * (1 + ragged)
        truth[inside] = number
        hu[inside] += 40 + 20 * number
    image = MetaTensor(torch.as_tensor(hu[None], dtype=torch.float32), affine=np.diag([-0.8, -0.8, 2.5, 1.0]))
    truth = torch.as_tensor(truth[None])
    shifted = torch.roll(truth, 8, 1)
    return draw_views(image, shifted, truth, windows=["soft_tissue"], most=24, room=ROOM // cases)


def evaluate(
    folder: Path, cases: Sequence[Known], *, class_names: Sequence[str] = CLASSES, windows: Sequence | None = None
) -> Path:
    """Write scores, summary and pictures of the cases, as `evaluating` does; return the folder."""
    data = folder / "data"
    items = [
        {"image": str(data / case.name), "patient": case.patient, "site": case.site, "annotated": case.annotated}
        for case in cases
    ]

    def step(engine: Engine, place: int) -> list[dict]:
        case = cases[place]
        uncertainty = torch.full((len(class_names) - 1,), (place + 1) / (len(cases) + 1), dtype=torch.float64)
        annotated = torch.from_numpy(annotated_classes(items[place], class_names))
        engine.state.batch = [{"original": case.image, "annotated": annotated}]
        return [{"pred": case.prediction, "truth": case.truth, "uncertainty": uncertainty}]

    engine = Engine(step)
    shared = {"output_dir": folder / "scores", "cases": items, "dataset_dir": data}
    scorer = CaseScorer(class_names, ["lesion"])
    ScoreTable(**shared, scorer=scorer, by=["size", "site"], resamples=200).attach(engine)
    CasePictures(**shared, windows=windows).attach(engine)
    engine.run(range(len(cases)))
    return folder / "scores"

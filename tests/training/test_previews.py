# SPDX-License-Identifier: Apache-2.0
"""Pictures of the first cases of every validation, on disk and in TensorBoard."""

import numpy as np
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from bundle.pyraseg.figures.drawing import COLORS, MARGIN
from bundle.pyraseg.training.epoch_log import Previews


def test_the_first_cases_are_drawn_after_every_validation(tmp_path):
    image = MetaTensor(torch.full((3, 300, 260), 200.0))
    truth, found = torch.zeros(1, 300, 260), torch.zeros(1, 300, 260)
    truth[0, :150] = 1  # the left half, and the network finds the right one
    found[0, 150:] = 1
    cases = [{"image": found, "original": image, "label": MetaTensor(truth)} for _ in range(3)]
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(
            cases, collate_fn=lambda items: {k: torch.stack([i[k] for i in items]) for k in items[0]}
        ),
        network=nn.Identity(),
        postprocessing=lambda item: {**item, "truth": MetaTensor(item["label"]), "pred": MetaTensor(item["pred"])},
        val_handlers=[Previews(tmp_path, cases=2, class_names=["background", "lesion"], windows=None)],
        prepare_batch=lambda batch, *args, **kwargs: (batch["image"], batch["label"]),
    )
    for epoch in (1, 4):
        evaluator.run(epoch)
    names = [f"epoch_{epoch:04d}_case_{case}.png" for epoch in (1, 4) for case in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "previews").iterdir()) == names
    picture = np.asarray(Image.open(tmp_path / "previews" / names[0]))
    assert picture.shape == (260 + 2 * MARGIN, 4 * 300, 3)
    left, right = (picture[150, x + 300 * np.arange(4)].tolist() for x in (50, 250))
    lesion = COLORS[1].tolist()
    assert left == [[200] * 3, lesion, [0] * 3, [200] * 3]
    assert right[:3] == [[200] * 3, [0] * 3, lesion]
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    # Files of one second are read in the order of their names, the tenth of a process before the ninth.
    assert {tag: sorted(image.step for image in events.Images(tag)) for tag in events.Tags()["images"]} == {
        "case_1": [1, 4],
        "case_2": [1, 4],
    }

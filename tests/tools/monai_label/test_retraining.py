# SPDX-License-Identifier: Apache-2.0
"""The better model is served, and both are compared on the same images."""

import json

import pytest
import torch
from monai.data import Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from monai.metrics import PSNRMetric
from monai.transforms import Compose
from torch.utils.data import DataLoader

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.settings import ModelSettings
from bundle.pyraseg.data import SliceDataset
from bundle.pyraseg.training.resume import Checkpoints
from bundle.pyraseg_tools.monai_label.retraining import fixed_validation, retrain

NONE = ModelSettings({}, {})


def retrained(folder, target, start=1.0):
    """Train a factor towards a target, beside a model of 1; validation wants 2.

    Return whether the model was replaced, and its factor.
    """
    network = torch.nn.Conv1d(1, 1, 1, bias=False)
    torch.nn.init.constant_(network.weight, start)
    model = folder / "models" / "model.pt"
    model.parent.mkdir(exist_ok=True)
    torch.save({"weight": torch.ones(1, 1, 1)}, model)
    ones = torch.ones(1, 4)
    score = IgniteMetricHandler(metric_fn=PSNRMetric(max_val=1), output_transform=from_engine(["pred", "label"]))
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader([{"image": ones, "label": 2 * ones}]),
        network=network,
        key_val_metric={"psnr": score},
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=5,
        train_data_loader=DataLoader([{"image": ones, "label": target * ones}]),
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.MSELoss(),
        train_handlers=[
            ValidationHandler(validator=evaluator, interval=1),
            Checkpoints(output_dir=folder / "run", network=network, kept=network, optimizer=optimizer,
                        evaluator=evaluator, settings=NONE, others={}, record={"config": {}, "data": {}}, resume=False),
        ],
    )  # fmt: skip
    replaced = retrain(
        trainer=trainer,
        evaluator=evaluator,
        network=network,
        weights=str(folder / "run" / "best.pt"),
        model=str(model),
        settings=NONE,
        data=(SliceDataset([], Compose([]), augmentation=Compose([]), cache_dir=folder / "cache"), Dataset([])),
        seed=0,
    )
    return replaced, float(torch.load(model, weights_only=True)["weight"])


def test_a_better_retraining_is_served_and_the_model_before_stays(tmp_path):
    replaced, factor = retrained(tmp_path, target=2.0)
    assert replaced and 1 < factor <= 2
    (kept,) = (tmp_path / "models" / "replaced").glob("*.pt")
    assert float(torch.load(kept, weights_only=True)["weight"]) == 1


def test_a_worse_retraining_does_not_replace_the_model(tmp_path):
    assert retrained(tmp_path, target=-5.0) == (False, 1.0)
    assert not (tmp_path / "models" / "replaced").exists()


def test_a_training_starts_from_what_it_was_given_and_not_from_the_model(tmp_path):
    assert retrained(tmp_path, target=-5.0, start=1.9)[0] is False  # the model would be worse at once too
    _, factor = retrained(tmp_path, target=2.0, start=-1.0)
    assert factor == pytest.approx(2 - 3 * 0.8**5)  # five steps of gradient descent


def each_of_a_patient(*images):
    return {image: image for image in images}


def test_the_validation_set_stays_when_labels_come(tmp_path):
    path = tmp_path / "validation.json"
    first, all_of_them = (each_of_a_patient(*(f"{i}.png" for i in range(count))) for count in (5, 50))
    chosen = fixed_validation(path, first, 0.4)
    assert len(chosen) == 2
    assert fixed_validation(path, all_of_them, 0.9) == chosen == set(json.loads(path.read_text()))
    path.unlink()
    assert fixed_validation(path, dict(reversed(first.items())), 0.4) == chosen  # whatever their order


def test_the_images_of_a_patient_are_on_one_side(tmp_path):
    patients = {f"{i}.png": f"patient {i // 3}" for i in range(12)}
    chosen = fixed_validation(tmp_path / "validation.json", patients, 0.3)
    assert len(chosen) == 6  # four at least, in whole patients
    assert not {patients[image] for image in chosen} & {patients[image] for image in patients.keys() - chosen}


def test_a_validation_image_without_label_stops_the_training(tmp_path):
    path = tmp_path / "validation.json"
    chosen = fixed_validation(path, each_of_a_patient("a.png", "b.png"), 0.5)
    with pytest.raises(PyrasegError, match="1 of 1 images"):
        fixed_validation(path, each_of_a_patient(*({"a.png", "b.png", "c.png"} - chosen)), 0.5)


@pytest.mark.parametrize("patients", [{}, {"a.png": "a"}, {"a.png": "a", "b.png": "a"}])
def test_too_few_labels_are_told_and_choose_nothing(tmp_path, patients):
    with pytest.raises(PyrasegError, match="too few"):
        fixed_validation(tmp_path / "validation.json", patients, 0.2)
    assert not (tmp_path / "validation.json").exists()

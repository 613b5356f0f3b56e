# SPDX-License-Identifier: Apache-2.0
"""A training whose cases were annotated for some of the classes only: from the data list to the gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.losses import DiceLoss
from monai.transforms import Compose, EnsureTyped, LoadImaged, RandFlipd
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.data.slices import Draw, SliceDataset
from bundle.pyraseg.networks.losses import DiceCELoss, DiceFocalLoss, PartialTarget
from bundle.pyraseg.training.iterations import AugmentBatch
from bundle.pyraseg.training.samplers import StagedSampler

CLASSES = ["background", "liver", "lesion", "spleen"]
KEYS = ["image", "label"]
LOAD = Compose([LoadImaged(KEYS, ensure_channel_first=True, dtype="uint8"), EnsureTyped(KEYS, dtype=torch.float32)])
AUGMENTATION = Compose([RandFlipd(KEYS, prob=0.5, spatial_axis=0), EnsureTyped(KEYS, track_meta=False)])


def write_case(folder: Path, name: str, classes: list[int], annotated: list[str] | None) -> dict:
    """Write an image with a quarter of each of the classes, and return its item."""
    label = np.repeat(np.repeat(np.reshape([*classes, *[0] * (4 - len(classes))], (2, 2)), 8, 0), 8, 1)
    for kind, values in (("image", 60 * label + 10), ("label", label)):
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(values.astype(np.uint8)).save(path)
    item = {kind: str(folder / kind / f"{name}.png") for kind in KEYS}
    return item if annotated is None else {**item, "annotated": annotated}


@pytest.fixture
def items(tmp_path) -> list[dict]:
    return [
        write_case(tmp_path, "a", [1], ["liver"]),
        write_case(tmp_path, "b", [2, 3], ["lesion", "spleen"]),
        write_case(tmp_path, "c", [1, 2, 3], None),
    ]


def dataset(items: list[dict], folder: Path, *, on_device: bool = False) -> SliceDataset:
    return SliceDataset(
        items, LOAD, augmentation=AUGMENTATION, augment_on_device=on_device, cache_dir=folder, class_names=CLASSES
    )


def draws(*cases: int) -> list[Draw]:
    return [Draw(case, 0, seed=case, strength=1.0) for case in cases]


def train(data: SliceDataset, loss: nn.Module, *cases: int) -> nn.Conv2d:
    """Return a network of one layer after one step of the trainer that trainings use, with its gradients."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, len(CLASSES), 1)
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(data, sampler=draws(*cases), batch_size=len(cases)),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=loss,
        prepare_batch=AugmentBatch(AUGMENTATION, loss=loss),
        optim_set_to_none=True,
    ).run()
    return network


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("loss", [DiceFocalLoss(batch=True), DiceCELoss(include_background=False)])
def test_a_step_moves_the_annotated_classes_alone(items, tmp_path, on_device, loss):
    data = dataset(items, tmp_path / "cache", on_device=on_device)
    for cases, learning in (([0, 0], [0, 1]), ([1, 1], [0, 2, 3]), ([0, 1], [0, 1, 2, 3]), ([2, 2], [0, 1, 2, 3])):
        network = train(data, loss, *cases)
        moved = [c for c in range(len(CLASSES)) if network.weight.grad[c].any() or network.bias.grad[c].any()]
        assert moved == learning, cases


def test_cases_annotated_for_everything_are_trained_as_without_the_field(items, tmp_path):
    """A batch of such a case among others, and a list that names all classes: weights equal to the last bit."""
    plain = {name: path for name, path in items[2].items() if name != "annotated"}
    named = {**plain, "annotated": CLASSES[1:]}
    loss = DiceFocalLoss(batch=True)
    expected = train(dataset([plain], tmp_path / "cache"), loss, 0, 0)
    stated = train(dataset([named], tmp_path / "cache"), loss, 0, 0)
    assert "annotated" not in dataset([named], tmp_path / "cache")[draws(0)[0]]
    among = train(dataset([items[2], *items[:2]], tmp_path / "cache"), loss, 0, 0)
    for network in (among, stated):
        assert torch.equal(network.weight, expected.weight) and torch.equal(network.bias, expected.bias)


def test_a_loss_that_cannot_leave_classes_out_is_refused(items, tmp_path):
    data = dataset(items, tmp_path / "cache")
    theirs = DiceLoss(softmax=True, to_onehot_y=True)
    train(data, theirs, 2, 2)  # this batch needs nothing of it
    with pytest.raises(PyrasegError, match="the loss DiceLoss would take the others for background"):
        train(data, theirs, 0, 2)


def test_a_batch_says_what_each_of_its_samples_was_annotated_for(items, tmp_path):
    batch = next(iter(DataLoader(dataset(items, tmp_path / "cache"), sampler=draws(0, 1, 2), batch_size=3)))
    _, target = AugmentBatch(AUGMENTATION, loss=DiceFocalLoss())(batch, torch.device("cpu"))
    assert isinstance(target, PartialTarget)
    assert target.annotated.int().tolist() == [[1, 1, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1]]


def test_a_changed_annotation_counts_at_once_and_makes_no_image_anew(items, tmp_path):
    first = dataset(items, tmp_path / "cache")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    changed = [{**items[0], "annotated": ["liver", "spleen"]}, *items[1:]]
    second = dataset(changed, tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before
    assert first[draws(0)[0]]["annotated"].tolist() == [True, True, False, False]
    assert second[draws(0)[0]]["annotated"].tolist() == [True, True, False, True]


@pytest.mark.parametrize("cached", [False, True])
def test_a_label_with_another_class_is_refused_whether_or_not_it_was_cached(items, tmp_path, cached):
    if cached:
        dataset(items, tmp_path / "cache")
    wrong = [items[0], {**items[1], "annotated": ["lesion"]}]
    with pytest.raises(PyrasegError, match=r"image/b\.png has pixels of the class 'spleen'"):
        dataset(wrong, tmp_path / "cache")


def test_classes_must_be_known(items, tmp_path):
    with pytest.raises(PyrasegError, match="Give it class_names"):
        SliceDataset(items, LOAD, augmentation=AUGMENTATION, cache_dir=tmp_path / "cache")


def test_draws_are_of_annotated_classes_and_of_slices_without_them(tmp_path):
    items = [write_case(tmp_path, "a", [1], ["liver"]), write_case(tmp_path, "b", [], ["spleen"])]
    sampler = StagedSampler(dataset(items, tmp_path / "cache"), samples_per_epoch=20, background_fraction=0)
    assert {draw.case for draw in sampler} == {0, 1}  # a case without its class is one of nothing but "not the spleen"
    assert [len(classes) for classes in sampler.showing] == [1, 0]

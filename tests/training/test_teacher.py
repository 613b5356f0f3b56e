# SPDX-License-Identifier: Apache-2.0
"""A teacher is the network that was trained, it teaches what it is shown, and a student begins as it."""

import pytest
import torch
from monai.transforms import Compose

from bundle.pyraseg.core import ModelSettings
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks import DeepLabV3Plus, PSPNet, TaughtTarget
from bundle.pyraseg.training import AugmentBatch, save_model
from bundle.pyraseg.training.teacher import load_teacher, take_over

SHARED = {"class_names": ["background", "lesion"], "image_kind": "photograph"}
ENCODER = {"encoder": "tf_efficientnet_lite0", "output_stride": 16}
FAST = {"output_stride": 32, "decoder_stride": 8, "bottleneck": 16, "decoder": "fpn", "patch_stem": True}


def settings(name: str = "PSPNet", **options) -> ModelSettings:
    network = {f"network.{key}": value for key, value in (ENCODER | options).items()}
    return ModelSettings({**SHARED, "network": name, **network}, {"class_names": "class_names"})


def trained(path, kind=PSPNet, **options) -> torch.nn.Module:
    torch.manual_seed(3)
    network = kind(**ENCODER, **options, pretrained=False).eval()
    save_model(network.state_dict(), path, settings=settings(kind.__name__, **options))
    return network


def load(path, own: ModelSettings | None = None) -> torch.nn.Module | None:
    return load_teacher(path, settings=own or settings(**FAST), device="cpu")


@pytest.mark.parametrize(
    ("kind", "options"),
    [(PSPNet, {"decoder": "fpn", "bottleneck": 24}), (PSPNet, {"pool_sizes": [1, 2]}), (DeepLabV3Plus, {})],
)
def test_a_teacher_is_built_from_its_file_alone(tmp_path, kind, options):
    network = trained(tmp_path / "teacher.pt", kind, **options)
    teacher = load(tmp_path / "teacher.pt")
    image = torch.randn(1, 3, 70, 96)
    with torch.no_grad():
        torch.testing.assert_close(teacher(image), network(image), rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in teacher.parameters()) and not teacher.training


def test_nobody_teaches_unless_that_is_asked_for():
    assert load(None) is None
    take_over(None, networks=[PSPNet(pretrained=False)])


def test_it_is_shown_the_augmented_images(tmp_path):
    trained(tmp_path / "teacher.pt")
    teacher = load(tmp_path / "teacher.pt")
    batch = {"image": torch.randn(2, 3, 64, 64), "label": torch.zeros(2, 1, 64, 64)}
    image, target = AugmentBatch(Compose([]), teacher=teacher)(batch)
    assert isinstance(target, TaughtTarget) and torch.equal(target.target, batch["label"])
    with torch.no_grad():
        torch.testing.assert_close(target.logits, teacher(image), rtol=1e-4, atol=1e-4)
    assert not target.logits.requires_grad


def test_a_student_begins_with_what_both_have(tmp_path):
    teacher = trained(tmp_path / "teacher.pt", decoder="fpn", bottleneck=24)
    student = PSPNet(encoder=ENCODER["encoder"], pretrained=False, **FAST)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    take_over(load(tmp_path / "teacher.pt"), networks=[student])
    after, theirs = student.state_dict(), teacher.state_dict()
    same = [name for name in after if name in theirs and after[name].shape == theirs[name].shape]
    assert all(torch.equal(after[name], theirs[name]) for name in same)
    assert all(torch.equal(after[name], before[name]) for name in after if name not in same)
    assert any(name.startswith("encoder.stages.3") for name in same)
    assert not any(name.startswith(("encoder.stem", "head.bottleneck.0")) for name in same)


def test_a_teacher_of_other_classes_or_images_is_refused(tmp_path):
    trained(tmp_path / "teacher.pt")
    own = ModelSettings({**settings().values, "class_names": ["background", "mole"]}, {"class_names": "class_names"})
    with pytest.raises(PyrasegError, match=r"The teacher .*teacher\.pt was trained with other settings") as error:
        load(tmp_path / "teacher.pt", own)
    assert "class_names" in str(error.value) and "Give distill_from a model of the same classes" in str(error.value)


def test_weights_that_cannot_teach_are_refused(tmp_path):
    with pytest.raises(PyrasegError, match="Correct distill_from"):
        load(tmp_path / "absent.pt")
    torch.save(PSPNet(**ENCODER, pretrained=False).state_dict(), tmp_path / "plain.pt")
    with pytest.raises(PyrasegError, match="does not say what it was trained with"):
        load(tmp_path / "plain.pt")
    weights = PSPNet(**ENCODER, pretrained=False).state_dict()
    save_model(weights, tmp_path / "unet.pt", settings=settings("UNet"))
    with pytest.raises(PyrasegError, match="'UNet', and distill_from takes those of PSPNet, DeepLabV3Plus"):
        load(tmp_path / "unet.pt")
    save_model(weights, tmp_path / "wide.pt", settings=settings(bottleneck=64))
    with pytest.raises(PyrasegError, match="do not fit the network of their own settings"):
        load(tmp_path / "wide.pt")
    save_model({"conv.weight": torch.zeros(1)}, tmp_path / "other.pt", settings=settings())
    with pytest.raises(PyrasegError, match="holds no weights of a PSPNet"):
        load(tmp_path / "other.pt")
    save_model(weights, tmp_path / "newer.pt", settings=settings(gates=3))
    with pytest.raises(PyrasegError, match=r"settings that are unknown here: .*gates"):
        load(tmp_path / "newer.pt")

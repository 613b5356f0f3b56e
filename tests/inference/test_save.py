# SPDX-License-Identifier: Apache-2.0
"""The evaluator, the writers and the tally together, with a network that fails where it is told to."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError, describe, mendable
from bundle.pyraseg.dicom.geometry import NoRegularGrid
from bundle.pyraseg.inference.inputs import InputDataset, SegmentOne
from bundle.pyraseg.inference.prediction import Prediction, SavePredictions
from bundle.pyraseg.inference.tally import Tally
from bundle.pyraseg.inference.writers.label_map import LabelMapWriter
from bundle.pyraseg.inference.writers.volumes import WORK, VolumeTable
from tests.helpers.holder import is_taken

CONFIG = Path(__file__).parents[2] / "configs" / "inference.json"
NAMES = ["a", "b", "c", "d"]


def load(item: dict) -> dict:
    image = MetaTensor(torch.full((1, 6, 5), float(NAMES.index(item["name"]))))
    return {**item, "image": image, "original": image.clone()}


def fails_for_c(images: torch.Tensor) -> torch.Tensor:
    if images.flatten()[0] == 2:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return images


def run(out: Path, writers: dict, network=fails_for_c) -> Tally:
    data = [{"image": "", "name": name} for name in NAMES]
    tally = Tally(data)
    handler = SavePredictions(out, outputs=list(writers), writers=writers, tally=tally)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(InputDataset(data, load, tally=tally), batch_size=1),
        network=torch.nn.Identity(),
        inferer=lambda images, _: SimpleInferer()(images, network),
        iteration_update=SegmentOne(tally=tally),
        val_handlers=[handler],
        decollate=True,
    )
    evaluator.run()
    return tally


def test_an_input_that_does_not_fit_stops_no_other(tmp_path):
    tally = run(tmp_path, {"labels": LabelMapWriter()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "d.png"]
    for value, name in ((0, "a"), (1, "b"), (3, "d")):  # to each its own
        assert (np.asarray(Image.open(tmp_path / f"{name}.png")) == value).all()
    with pytest.raises(
        PyrasegError, match="1 of 4 inputs failed, the others were segmented:\n  c: there is not enough memory"
    ):
        tally.require_all()


def test_a_writer_that_fails_stops_no_other(tmp_path, caplog):
    def refuse(prediction: Prediction) -> None:
        if prediction.name == "b":
            raise PyrasegError("this one not")
        if prediction.name == "d":
            raise ZeroDivisionError("Secret^Name")

    caplog.set_level("INFO")
    tally = run(tmp_path, {"odd": refuse, "labels": LabelMapWriter(), "also": refuse}, network=lambda images: images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png", "d.png"]
    assert tally.failures["b"] == ["no odd, also: this one not"]
    assert list(tally.failures) == ["b", "d"]
    assert "4 of 4 inputs segmented, 2 of them without an output that was asked for" in caplog.text
    with pytest.raises(PyrasegError, match="2 of 4 inputs were segmented, but lack an output:\n  b: no odd, also: "):
        tally.require_all()
    (reason,) = tally.failures["d"]
    assert reason.startswith("no odd, also: an unexpected ZeroDivisionError at test_save.py:")
    assert "Secret" not in caplog.text


def test_the_books_are_true_of_slices_on_no_grid_and_keep_all_of_an_advice(tmp_path, caplog):
    """With a DICOM SEG nothing is lacking; without one the message ends with what to do, however long it is."""
    advice = f"{'apart ' * 100}DICOM SEG has: ask for that."

    def no_grid(prediction: Prediction) -> None:
        raise NoRegularGrid(advice)

    def seg(prediction: Prediction) -> list[Path]:
        path = prediction.stem.with_name(f"{prediction.name}_seg.dcm")
        path.touch()
        return [path]

    caplog.set_level("INFO")
    tally = run(tmp_path, {"labels": no_grid, "seg": seg}, network=lambda images: images)
    tally.require_all()
    assert "a -> a_seg.dcm (no labels: its slices are on no regular grid" in caplog.text
    assert "4 of 4 inputs segmented (" in caplog.text
    tally = run(tmp_path, {"labels": no_grid, "overlay": seg}, network=lambda images: images)
    with pytest.raises(PyrasegError, match=r"4 of 4 inputs were segmented, but lack an output:") as told:
        tally.require_all()
    assert str(told.value).count(advice) == 4
    assert "4 of 4 inputs segmented, 4 of them without" in caplog.text


def test_writing_goes_on_while_the_next_input_is_segmented(tmp_path):
    """The first prediction is not written before the second is there; a run that wrote in turn would never end."""
    second = threading.Event()
    order = []

    def patient(prediction: Prediction) -> list[Path]:
        if prediction.name == "a":
            assert second.wait(30)
        order.append(prediction.name)
        return []

    def network(images: torch.Tensor) -> torch.Tensor:
        if images.flatten()[0] == 1:
            second.set()
        return images

    tally = run(tmp_path, {"patient": patient}, network)
    assert order == NAMES and not tally.failures


def test_a_run_that_is_interrupted_lets_other_processes_have_its_folder_when_all_is_written(tmp_path):
    """A writer is at work when it comes."""
    begun, taken = threading.Event(), []

    def patient(prediction: Prediction) -> list[Path]:
        begun.set()
        taken.append(is_taken(tmp_path, WORK))
        return []

    def network(images: torch.Tensor) -> torch.Tensor:
        if images.flatten()[0] == 1:
            assert begun.wait(30)
            raise KeyboardInterrupt
        return images

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, {"volumes": VolumeTable(output_dir=tmp_path, class_names=NAMES), "patient": patient}, network)
    assert taken == [True] and not is_taken(tmp_path, WORK)


def test_an_output_that_does_not_exist(tmp_path):
    with pytest.raises(PyrasegError, match=r"no output 'segg'; there are labels, .*The nearest name is 'seg'"):
        SavePredictions(tmp_path, outputs=["segg"], writers={"labels": LabelMapWriter()}, tally=Tally([]))


def test_a_full_disk_is_told_in_words():
    assert describe(OSError(28, "No space left on device", "/out/a.png")) == "No space left on device: /out/a.png."


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"outputs": ["labels", "segg"]}, "There is no output 'segg'"),
        ({"outputs": ["seg"], "class_names": ["background", "tumor"]}, "the terminology has none for tumor"),
        ({"outputs": ["mesh"], "mesh_format": "obj"}, "There is no mesh format 'obj'"),
        ({"outputs": ["labels"], "class_names": ["background", "tumor"]}, None),  # needs no codes
    ],
)
def test_the_config_refuses_before_anything_is_segmented(tmp_path, option, message):
    Image.new("L", (5, 6)).save(tmp_path / "a.png")
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser.update({"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), **option})
    if message is None:
        assert parser.get_parsed_content("handlers")
        return
    with pytest.raises(Exception) as raised:
        parser.get_parsed_content("handlers")
    assert message in str(mendable(raised.value))


def test_what_is_gone_at_the_end_is_not_counted(tmp_path, caplog):
    def removed(prediction: Prediction) -> list[Path]:
        if prediction.name == "b":
            (tmp_path / "a.png").unlink()
        return []

    caplog.set_level("INFO")
    tally = run(tmp_path, {"labels": LabelMapWriter(), "removed": removed}, network=lambda images: images)
    assert list(tally.failures) == ["a"]
    assert "3 of 4 inputs segmented, 1 failed" in caplog.text


def test_an_input_without_any_result_is_not_segmented(tmp_path, caplog):
    caplog.set_level("INFO")
    tally = run(tmp_path, {"seg": lambda prediction: None}, network=lambda images: images)
    assert "0 of 4 inputs segmented, 4 failed" in caplog.text
    with pytest.raises(PyrasegError, match="a: seg: not for an input of this kind"):
        tally.require_all()

# SPDX-License-Identifier: Apache-2.0
"""`pyraseg segment` and `pyraseg models`: which model takes what, what is said of it, and the masks that it writes."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from bundle.pyraseg.commands import main
from bundle.pyraseg.commands import segment as command
from bundle.pyraseg.core import ModelSettings, PyrasegError
from bundle.pyraseg.workflow import read_config
from bundle.pyraseg_tools.datasets import write_photograph_study
from tests.helpers.commands import ROOT
from tests.helpers.dicom_files import write_image


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a photograph with its mask beside the current folder, which is empty."""
    write_photograph_study(tmp_path / "drawn", seed=5, people=3, photographs=1)
    first, *others = sorted((tmp_path / "drawn" / "images").iterdir())
    for path in others:
        path.unlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return first


def dice(found: Path, truth: Path) -> float:
    one, other = (np.asarray(Image.open(path)) > 0 for path in (found, truth))
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def volume(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "made_up.nii.gz"
    values = np.random.default_rng(0).normal(0, 50, (48, 40, 3)).astype(np.float32)
    nib.Nifti1Image(values, np.diag([2.5, 2.5, 5, 1])).to_filename(path)
    return path


def untrained(path: Path) -> Path:
    torch.manual_seed(0)
    network = read_config([ROOT / "configs" / "inference.json"]).get_parsed_content("network_def")
    path.parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), path)
    return path


def test_a_photograph_and_nothing_else(drawn, capsys):
    assert main(["segment", str(drawn), "out"]) == 0
    said = capsys.readouterr().out
    assert "left out" not in said
    assert "the model dermoscopy_fast (" in said and "dermoscopy_fast.int8.onnx; int8, ONNX Runtime)" in said
    assert "Trained on: ISIC 2017" in said and "Not for diagnosis" in said
    truth = drawn.parents[1] / "masks" / f"{drawn.stem}_segmentation.png"
    assert dice(Path("out", f"{drawn.stem}.png"), truth) > 0.8
    assert sorted(path.name for path in Path().iterdir()) == ["out"]  # nothing else is written here


def test_both_kinds_in_a_folder(drawn, capsys):
    volume(drawn.parent)
    for k in range(4):  # headers of slices without pixels, which the search cannot take for an image
        write_image(drawn.parent / "ct" / f"{k}.dcm", np.zeros((8, 8), np.int16), Rows=None, Columns=None)
    untrained(Path("models", "model.pt"))
    assert main(["segment", str(drawn.parent), "out", "--outputs", "labels"]) == 0
    said = capsys.readouterr().out
    assert "left out: 4 CT object without an image (ct/0.dcm, ct/1.dcm, ct/2.dcm and 1 more)" in said
    assert "Photographs (1)" in said and "Series and volumes (1)" in said and "trained here" in said
    assert {path.relative_to("out").as_posix() for path in Path("out").rglob("*.*")} == {
        f"dermoscopy_fast/{drawn.stem}.png", "model/made_up.nii.gz",
    }  # fmt: skip


def table(folder: Path) -> list[list[str]]:
    with (folder / "volumes.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_both_roads_write_the_same(drawn, capsys):
    """The form in int8 without PyTorch, and its weights in PyTorch: files, table and, but for rounding, labels."""
    words = ["segment", str(drawn), "--model", "dermoscopy_fast"]
    assert main([*words[:2], "int8", *words[2:]]) == 0
    told = capsys.readouterr().out
    assert main([*words[:2], "float", *words[2:], "--device", "cpu"]) == 0
    told_by_torch = capsys.readouterr().out
    assert "int8, ONNX Runtime" in told and "dermoscopy_fast.pt; PyTorch)" in told_by_torch
    lines = [next(line for line in text.splitlines() if " -> " in line)[9:] for text in (told, told_by_torch)]
    assert lines[0] == lines[1] == f"{drawn.stem} -> {drawn.stem}.png, {drawn.stem}_overlay.png, volumes.csv"
    assert "1 of 1 inputs segmented" in told and "1 of 1 inputs segmented" in told_by_torch
    one, other = Path("int8"), Path("float")
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
    label_maps = [Image.open(folder / f"{drawn.stem}.png") for folder in (one, other)]
    assert label_maps[0].mode == label_maps[1].mode == "L" and label_maps[0].size == label_maps[1].size
    int8, true = map(np.asarray, label_maps)
    assert (int8 == true).mean() >= 0.99 and 0 < int8.mean() < 1
    (columns, row), (columns_of_torch, row_of_torch) = table(one), table(other)
    assert columns == columns_of_torch and int(row[3]) == int8.sum() and int(row_of_torch[3]) == true.sum()
    others = [columns.index(name) for name in columns if name not in ("voxels", "unlike")]
    assert [row[place] for place in others] == [row_of_torch[place] for place in others]
    unlike = [values[columns.index("unlike")] for values in (row, row_of_torch)]
    assert [bool(value) for value in unlike].count(True) != 1
    assert float(unlike[0] or 0) == pytest.approx(float(unlike[1] or 0), abs=0.002)
    pictures = [np.asarray(Image.open(folder / f"{drawn.stem}_overlay.png")).astype(int) for folder in (one, other)]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] == pictures[1]).all(axis=2).mean() >= 0.99  # original and captions, and what the labels leave


def test_neither_pytorch_nor_monai_is_imported_for_a_photograph(drawn):
    program = (
        "import sys\n"
        "from bundle.pyraseg.commands import main\n"
        "code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'monai', 'ignite', 'timm', 'matplotlib', 'skimage', 'nibabel', 'pydicom'}\n"
        "print('imported:', *sorted(heavy & sys.modules.keys()))\n"
        "sys.exit(code)"
    )
    words = [sys.executable, "-c", program, "segment", str(drawn), "out"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"
    assert {path.name for path in Path("out").iterdir()} == {
        f"{drawn.stem}.png", f"{drawn.stem}_overlay.png", "volumes.csv",
    }  # fmt: skip


@pytest.mark.parametrize("options", [[], ["--device", "cpu"]], ids=["runtime", "torch"])
def test_a_broken_photograph_does_not_stop_the_others(drawn, capsys, options):
    drawn.with_name("broken.jpg").write_bytes(drawn.read_bytes()[:500])
    drawn.with_name("odd.bin").write_bytes(b"no image")
    assert main(["segment", str(drawn.parent), "out", *options]) == 1
    told = capsys.readouterr()
    assert f"broken: {drawn.with_name('broken.jpg')} cannot be read as an image" in told.out
    assert "1 of 3 inputs segmented, 2 failed" in told.out
    assert told.err.startswith("pyraseg: 2 of 3 inputs failed, the others were segmented:\n  broken: ")
    assert told.err.endswith("\n  odd.bin: is not DICOM\n")
    assert dice(Path("out", f"{drawn.stem}.png"), drawn.parents[1] / "masks" / f"{drawn.stem}_segmentation.png") > 0.8
    assert [row[0] for row in table(Path("out"))] == ["case", drawn.stem]


def test_an_output_that_cannot_be_written_is_lacking_and_the_others_are_there(drawn, capsys):
    Path("out", f"{drawn.stem}_overlay.png").mkdir(parents=True)
    Path("out", f"{drawn.stem}_overlay.png", "kept.txt").touch()
    assert main(["segment", str(drawn), "out"]) == 1
    told = capsys.readouterr()
    assert "1 of 1 inputs were segmented, but lack an output" in told.err and "no overlay: " in told.err
    assert Path("out", f"{drawn.stem}.png").is_file() and len(table(Path("out"))) == 2


def test_a_photograph_that_is_not_there(drawn, capsys):
    assert main(["segment", "none.jpg", "out"]) == 1
    assert f"There is nothing at {Path('none.jpg').resolve()}. Give the folder or file" in capsys.readouterr().err


def test_a_result_does_not_replace_a_photograph_in_the_runtime(drawn, capsys):
    png = drawn.with_suffix(".png")
    Image.open(drawn).save(png)
    drawn.unlink()
    before = png.read_bytes()
    Path("link").symlink_to(drawn.parent)
    assert main(["segment", str(png), "link", "--model", "dermoscopy_fast"]) == 1
    assert png.read_bytes() == before and "two folders" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "outputs"),
    [({"min_size": 20}, None), ({"outputs": ["labels", "seg"]}, None), ({"outputs": ["overlay"]}, ["overlay"])],
)
def test_what_a_config_sets_decides_the_road(drawn, capsys, settings, outputs):
    """A clone's own configs count for the runtime as for PyTorch."""
    for name in ("configs", "models"):
        shutil.copytree(ROOT / name, Path(name))
    overlay = Path("configs", "dermoscopy_fast_inference.json")
    overlay.write_text(json.dumps(json.loads(overlay.read_text()) | settings))
    main(["segment", str(drawn), "out"])
    said = capsys.readouterr().out
    assert ("ONNX Runtime)" in said, "PyTorch)" in said) == (outputs is not None, outputs is None)
    if outputs:
        assert [path.name for path in Path("out").iterdir()] == [f"{drawn.stem}_overlay.png"]


def test_without_onnx_runtime_the_same_weights_run_in_pytorch_and_a_line_says_so(drawn, capsys, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["segment", str(drawn), "out", "--outputs", "labels"]) == 0
    said = capsys.readouterr().out
    assert 'ONNX Runtime is missing. pip install "pyraseg[runtime]"' in said and "dermoscopy_fast.pt; PyTorch)" in said
    assert [path.name for path in Path("out").iterdir()] == [f"{drawn.stem}.png"]


def test_a_photograph_of_very_many_pixels_runs_in_pytorch_and_a_line_says_so(drawn, capsys, monkeypatch):
    columns, rows = Image.open(drawn).size
    drawn.with_name("broken.jpg").write_bytes(b"no image")
    for largest, program in ((columns * rows, "int8, ONNX Runtime)"), (columns * rows - 1, "PyTorch)")):
        monkeypatch.setattr(command, "LARGEST", largest)
        assert main(["segment", str(drawn.parent), f"out_{largest}", "--outputs", "labels"]) == 1
        told = capsys.readouterr()
        assert program in told.out and (f"{drawn} has more than {largest:,} pixels" in told.out) == (program[0] == "P")
        assert "1 of 2 inputs failed" in told.err and Path(f"out_{largest}", f"{drawn.stem}.png").is_file()


def test_a_form_of_other_weights_is_not_taken(drawn, capsys):
    for name in ("configs", "models"):
        shutil.copytree(ROOT / name, Path(name))
    weights = Path("models", "dermoscopy_fast.pt")
    state = torch.load(weights, weights_only=True)
    zeros = {key: torch.zeros_like(value) if isinstance(value, torch.Tensor) else value for key, value in state.items()}
    torch.save(zeros, weights)
    assert main(["segment", str(drawn), "out", "--outputs", "labels"]) == 0
    said = capsys.readouterr().out
    assert "dermoscopy_fast.int8.onnx is a form of other weights" in said and "trained here" in said
    assert not np.asarray(Image.open(Path("out", f"{drawn.stem}.png"))).any()


@pytest.mark.parametrize("name", ["dermoscopy_fast", "phantom"])
def test_inputs_in_the_place_of_results_of_a_model_are_refused_before_any_work(drawn, capsys, name):
    source = Path(name)
    source.mkdir()
    shutil.copy(drawn, source)
    volume(source)
    (source / "volumes.csv").write_text("of a user")
    before = {path: path.read_bytes() for path in source.iterdir()}
    assert main(["segment", name, "."]) == 1
    told = capsys.readouterr()
    assert f"{name} is the folder of inputs and of results" in told.err and "Photographs (1)" not in told.out
    assert {path: path.read_bytes() for path in source.iterdir()} == before
    assert [path.name for path in Path().iterdir()] == [name]


def test_a_folder_of_a_model_that_leads_into_the_inputs_is_refused_before_any_work(drawn, capsys):
    volume(drawn.parent)
    (drawn.parent / "more").mkdir()
    Path("out").mkdir()
    Path("out", "phantom").symlink_to(drawn.parent / "more")
    assert main(["segment", str(drawn.parent), "out"]) == 1
    told = capsys.readouterr()
    assert "among the inputs" in told.err and "Photographs (1)" not in told.out
    assert not any((drawn.parent / "more").iterdir()) and not Path("out", "dermoscopy_fast").exists()


def test_a_volume_and_nothing_else_is_segmented_with_a_warning(tmp_path, monkeypatch, capsys):
    source = volume(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    assert main(["segment", str(source), "out", "--outputs", "labels"]) == 0
    said = capsys.readouterr().out
    assert "by the model phantom" in said and "WARNING: this model was trained on SYNTHETIC images only" in said
    assert nib.load("out/made_up.nii.gz").shape == (48, 40, 3)


def test_a_file_of_weights_and_the_options_of_a_config(tmp_path, capsys):
    weights = untrained(tmp_path / "models" / "mine.pt")
    source, out = volume(tmp_path / "in"), tmp_path / "out"
    words = ["segment", str(source), str(out), "--model", str(weights), "--outputs", "labels", "--spacing", "5.0"]
    assert main(words) == 0 and nib.load(out / "made_up.nii.gz").shape == (48, 40, 3)
    assert main([*words[:-2], "--spacin", "5.0"]) == 1
    assert "The nearest name is 'spacing'" in capsys.readouterr().err


def test_an_exported_model_and_a_package_are_refused_in_words(tmp_path, capsys):
    source = volume(tmp_path / "in")
    assert main(["segment", str(source), str(tmp_path / "out"), "--model", str(tmp_path / "none.onnx")]) == 1
    assert "There is no model at" in capsys.readouterr().err
    assert main(["segment", str(source), str(tmp_path / "out"), "--model", "dermoscpy"]) == 1
    assert "'dermoscopy'" in capsys.readouterr().err
    assert main(["segment", str(source), str(tmp_path / "out"), "--outputs", "label"]) == 1
    assert "'labels'" in capsys.readouterr().err
    shutil.copy(source, tmp_path / "no.zip")
    assert main(["segment", str(source), str(tmp_path / "out"), "--model", str(tmp_path / "no.zip")]) == 1
    assert "is refused" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("typed", "meant"), [("--modle", "model"), ("--ouputs", "outputs"), ("--taks", "task")])
def test_a_mistyped_option_of_the_command_is_hinted_to_it(drawn, capsys, typed, meant):
    assert main(["segment", str(drawn), "out", typed, "x"]) == 1
    assert f"pyraseg segment has no option {typed}. The nearest name is '{meant}'." in capsys.readouterr().err


def test_an_option_of_the_command_may_have_underscores(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("kept")
    assert main(["export", "--output_dir", "taken"]) == 1
    assert "taken is a file" in capsys.readouterr().err


def test_models_tells_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    untrained(Path("models", "mine.pt"))
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    for text in (
        "dermoscopy: Segmentation of skin lesions",
        "phantom: Segmentation of liver",
        "mean dice 0.902",
        "fast form   ",
        "Apache-2.0",
        "models/mine.pt",
    ):
        assert text in said


def test_weights_of_half_precision_give_what_they_say(tmp_path):
    from bundle.pyraseg.training import load_model

    network = read_config([ROOT / "configs" / "inference.json"]).get_parsed_content("network_def")
    half = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    loaded = load_model(network, tmp_path / "half.pt", settings=ModelSettings({}, {}), remedy="").state_dict()
    assert all(loaded[name].dtype in (torch.float32, torch.int64) for name in half)
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in half.items())
    with pytest.raises(PyrasegError, match="does not fit the network"):
        torch.save({"a": torch.zeros(1)}, tmp_path / "half.pt")
        load_model(network, tmp_path / "half.pt", settings=ModelSettings({}, {}), remedy="")


@pytest.mark.parametrize("words", [[], ["--model", "dermoscopy"]])
def test_a_model_of_an_included_task_that_was_trained_here_comes_first(drawn, capsys, words):
    Path("models").mkdir()
    weights = Path("models", "dermoscopy.pt").resolve()
    state = torch.load(ROOT / "models" / "dermoscopy.pt", weights_only=True)
    torch.save({key: torch.zeros_like(value) for key, value in state.items()}, weights)
    assert main(["segment", str(drawn), "out", "--outputs", "labels", *words]) == 0
    said = capsys.readouterr().out
    assert f"{weights}, trained here: Segmentation of skin lesions" in said
    assert not np.asarray(Image.open(Path("out", f"{drawn.stem}.png"))).any()  # of weights that are all 0


def test_weights_that_a_training_put_in_the_place_of_included_ones_are_not_called_those(drawn, capsys, monkeypatch):
    for name in ("configs", "models"):
        shutil.copytree(ROOT / name, Path(name))
    weights = Path("models", "dermoscopy.pt")
    state = torch.load(weights, weights_only=True)
    torch.save({key: value + 0 for key, value in state.items()} | {}, weights)
    weights.write_bytes(weights.read_bytes() + b"\0")
    monkeypatch.setattr("bundle.pyraseg.commands.models.home", lambda: Path().resolve())
    assert main(["models"]) in (0, None)
    said = next(part for part in capsys.readouterr().out.split("\n\n") if part.startswith("dermoscopy: "))
    assert "data of a training here" in said and "ISIC 2017, part 1" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tta_flips", "[[0]]", "--min_size", "many"], "'min_size' takes a whole number from 0 on, not 'many'"),
        (["--device", "cuda"], "The device is 'cuda', but PyTorch"),
        (["--sequence_dropout", "x"], "'sequence_dropout' takes a number from 0 to 1, not 'x'"),
        (["--sequence_dropout", "2"], "'sequence_dropout' takes a number from 0 to 1, not 2"),
        (["--phase", "0"], "phase is a number from 1 on, or all, not 0"),
        (["--sequences", "5"], "sequences is 5. Name each"),
    ],
)
def test_a_wrong_value_is_told_in_a_line(drawn, capsys, options, words):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["segment", str(drawn), "out", *options]) == 1
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told


def test_an_output_that_is_a_file_is_told_before_any_work(drawn, capsys):
    Path("out").write_text("kept")
    assert main(["segment", str(drawn), "out"]) == 1
    told = capsys.readouterr()
    assert "out is a file. Give another." in told.err and "the model" not in told.out
    assert Path("out").read_text() == "kept"


def test_what_is_no_image_is_refused_in_words(drawn, capsys):
    notes = drawn.with_name("notes.txt")
    notes.write_text("not an image")
    assert main(["segment", str(notes), "out"]) == 1
    assert f"{notes} is no image" in capsys.readouterr().err
    assert main(["segment", str(drawn.parent), "out", "--outputs", "labels"]) == 0
    assert [path.name for path in Path("out").iterdir()] == [f"{drawn.stem}.png"]

# SPDX-License-Identifier: Apache-2.0
"""All forms of series in one folder, through the real command: label maps lie true, and what is refused is named."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.helpers.commands import config_files, monai_bundle
from tests.helpers.corpus.form import Form, Stack
from tests.helpers.corpus.forms import FORMS
from tests.helpers.corpus.results import complaints, in_nifti
from tests.helpers.corpus.writing import written_for
from tests.helpers.threshold_network import ThresholdNetwork

THRESHOLD = 100
#: A model of gray images, without resampling.
CONFIG = {
    "refuse": "none",
    "pet_units": "stored",
    "class_names": ["background", "liver"],
    "windows": [{"center": THRESHOLD, "width": 400, "function": "LINEAR_EXACT"}],
    "context_slices": 0,
    "network_def": {
        "_target_": "tests.helpers.threshold_network.ThresholdNetwork",
        "unused": [
            "@encoder",
            "@pretrained",
            "@output_stride",
            "@patch_stem",
            "@pool_sizes",
            "@decoder",
            "@decoder_stride",
            "@bottleneck",
            "@dropout",
        ],
    },
    "preprocessing#transforms#4#_disabled_": True,
}


def is_gray(stack: Stack) -> bool:
    return stack[0].values.ndim == 2


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    work = tmp_path_factory.mktemp("corpus")
    stacks = {}
    for number, form in enumerate(FORMS):
        with written_for(form.name):
            stacks[form] = form.write(work / "in" / f"{number:03d}")
    torch.save(ThresholdNetwork().state_dict(), work / "model.pt")
    (work / "threshold.json").write_text(json.dumps(CONFIG))
    command = [
        "run", "inferring", "--config_file", str([config_files("inference.json"), str(work / "threshold.json")]),
        "--dataset_dir", str(work / "in"), "--output_dir", str(work / "out"), "--model_file", str(work / "model.pt"),
        "--outputs", "['labels','seg','rtstruct']", "--complete_headers", "True",
    ]  # fmt: skip
    run = monai_bundle(*command, cwd=work)
    return SimpleNamespace(work=work, command=command, run=run, stacks=stacks, told=run.stdout + run.stderr)


def results(done: SimpleNamespace, form: Form, suffix: str) -> list[Path]:
    number = f"{FORMS.index(form):03d}"
    found = [path for path in (done.work / "out").rglob(f"*{suffix}") if "_series" not in path.parent.name]
    return [path for path in found if path.relative_to(done.work / "out").as_posix().startswith(number)]


@pytest.mark.slow
@pytest.mark.parametrize("form", [form for form in FORMS if not form.refused and not form.options], ids=str)
def test_a_form_is_segmented_where_it_lies_or_named(form: Form, done: SimpleNamespace) -> None:
    stacks = done.stacks[form]
    if not is_gray(stacks[0]):
        pytest.skip("this model is of gray images")
    maps = results(done, form, ".nii.gz")
    assert len(maps) == len(stacks), done.told[-3000:]
    for stack in stacks:
        values = np.stack([one.values for one in stack])
        truth = values < THRESHOLD if "MONOCHROME1" in form.name else values > THRESHOLD  # shown inverted
        assert any(is_true(path, stack, truth) for path in maps)


def is_true(path: Path, stack: Stack, truth: np.ndarray) -> bool:
    """Return whether a label map is that of a stack: the labels in their places or, without any, in their order."""
    image = nib.load(path)
    if stack[0].plane is None:
        assert (image.header["qform_code"], image.header["sform_code"]) == (0, 0)
        return np.array_equal(np.asarray(image.dataobj).T, truth)
    try:
        return np.array_equal(in_nifti(path, stack), truth)
    except (AssertionError, IndexError):  # of another input
        return False


@pytest.mark.slow
def test_what_is_refused_is_named_and_no_one_else(done: SimpleNamespace) -> None:
    assert done.run.returncode == 1
    assert "Traceback" not in done.told, done.told[-5000:]
    assert "Secret" not in done.told and "SECRET" not in done.told
    said = done.run.stderr.split("inputs failed, the others were segmented:")[1]
    for number, form in enumerate(FORMS):
        if form.refused:
            (line,) = [line for line in said.splitlines() if line.strip().startswith(f"{number:03d}")] or [""]
            assert all(words in line for words in form.refused), (form.name, line)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "MR, cine, times differ from place to place",
        "MR, flow in three directions over the heart beat",
        "MR, diffusion tensor with two images without weighting",
        "Enhanced MR, told apart by the indices of dimensions alone",
        "SPECT of a beating heart",
    ],
)
def test_what_is_advised_is_typed(name: str, done: SimpleNamespace) -> None:
    (form,) = [form for form in FORMS if form.name == name]
    folder = f"{FORMS.index(form):03d}"
    told = re.findall(rf"\b{folder}(?:/\w+)?: .*", done.told)
    options = shlex.split(re.findall(r"--select (?:'[^']*'|\S+)", max(told, key=len))[-1])  # the end lists it in short
    command = [word.replace(f"{done.work}/in", f"{done.work}/in/{folder}") for word in done.command]
    command[command.index("--output_dir") + 1] = str(done.work / f"chosen_{folder}")
    run = monai_bundle(*command, *options, cwd=done.work)
    assert run.returncode == 0, (options, run.stderr[-300:])
    (path,) = (done.work / f"chosen_{folder}").rglob("*.nii.gz")
    truths = [(stack, np.stack([one.values for one in stack]) > THRESHOLD) for stack in done.stacks[form]]
    assert any(is_true(path, stack, truth) for stack, truth in truths)


@pytest.mark.slow
def test_objects_are_clean(done: SimpleNamespace) -> None:
    written = [*(done.work / "out").rglob("*_seg.dcm"), *(done.work / "out").rglob("*_rtstruct.dcm")]
    assert len(written) > len(FORMS)
    faulty = {path.name: found for path in written if (found := complaints(path))}
    assert not faulty


def test_the_threshold_is_that_of_the_window() -> None:
    image = torch.tensor([-0.1, 0.0, 0.1]).reshape(1, 1, 1, 3)
    assert ThresholdNetwork()(image).argmax(1).flatten().tolist() == [0, 0, 1]

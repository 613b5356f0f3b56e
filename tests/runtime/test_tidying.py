# SPDX-License-Identifier: Apache-2.0
"""What the bundle tidies up of its labels the runtime does as well."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.deployment.recipe import Tidying
from bundle.pyraseg.runtime import Model
from bundle.pyraseg.runtime.__main__ import main
from bundle.pyraseg.transforms import TidyLabelsd
from tests.helpers.exported import Exported, exported
from tests.helpers.onnx_paths import WINDOWS, photograph, steps, volume
from tests.helpers.runtime_series import SERIES, check, png, series
from tests.runtime.test_tiled_photographs import picture

NAMES = ["background", "liver", "spleen"]
ASKED = {"keep_largest": ["spleen"], "fill_holes": ["liver"], "min_size": 30}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported(tmp_path_factory.mktemp("plain"), volume(*WINDOWS, context_slices=1))


@pytest.fixture(scope="module")
def tidied(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    chain = volume(*WINDOWS, context_slices=1)
    tidy = TidyLabelsd("pred", class_names=NAMES, **ASKED)
    return exported(tmp_path_factory.mktemp("tidied"), chain, parts=steps(chain, tidy=tidy))


def run(model: Path, source: Path, output: Path) -> int:
    return main([str(model), str(source), str(output), "--threads", "1"])


@pytest.mark.parametrize("name", SERIES)
def test_a_series(name: str, plain: Exported, tidied: Exported, tmp_path: Path) -> None:
    folder = series(tmp_path / "in", name)
    assert run(tidied.path, folder, tmp_path / "out") == 0
    expected = tidied.truth(folder)
    check(png(tmp_path / "out" / "in_labels"), expected)
    assert (expected != plain.truth(folder)).mean() > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("asked", [{"keep_largest": ["liver"]}, {"fill_holes": ["spleen", "liver"]}, {"min_size": 20}])
def test_a_photograph(asked: dict, tmp_path: Path) -> None:
    chain = photograph()
    tidy = TidyLabelsd("pred", class_names=NAMES, **asked)
    model = exported(tmp_path / "model", chain, rgb=True, parts=steps(chain, tidy=tidy))
    path = picture(tmp_path / "a.png", (90, 70))
    assert run(model.path, path, tmp_path / "out") == 0
    check(png(tmp_path / "out" / "a.png"), model.truth(path))


def test_what_the_file_says_and_earlier_runtimes_refuse(plain: Exported, tidied: Exported) -> None:
    assert Model(tidied.path, threads=1).tidying == Tidying((2,), (1,), 30)
    assert not Model(plain.path, threads=1).tidying
    formats = {}
    for model in (plain, tidied):
        about = {item.key: item.value for item in onnx.load(model.path).metadata_props}
        formats[model] = about["pyraseg_format"], about["content"]
    assert formats == {plain: ("1", "path"), tidied: ("3", "path")}


def test_without_scipy_a_model_says_so_before_it_begins(
    tidied: Exported, plain: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.pyraseg.runtime.tidying.find_spec", lambda name: None)
    Model(plain.path, threads=1)
    with pytest.raises(PyrasegError, match="pip install scipy"):
        Model(tidied.path, threads=1)


def test_components_of_equal_size_and_slices_apart(tidied: Exported, tmp_path: Path) -> None:
    """A component of `min_size` ends where slices are missing; the largest is that of all slices."""
    values = np.zeros((4, 6, 6), np.uint8)
    values[:, :2, :2] = 1  # 4 x 4 voxels, in two blocks of 8
    ones = np.ones(2)
    blocks = [(np.array([0, 1]), ones), (np.array([2, 3]), ones)]
    model = Model(tidied.path, threads=1)
    array = values.transpose(2, 1, 0)
    assert (Tidying(min_size=9)(array, model.structures, blocks) == 0).all()
    assert (Tidying(min_size=8)(array, model.structures, blocks) == array).all()
    array = np.zeros((5, 1, 1), np.uint8)
    array[[0, 4]] = 1
    assert Tidying(keep_largest=(1,))(array, model.structures).ravel().tolist() == [1, 0, 0, 0, 0]

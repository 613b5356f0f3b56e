# SPDX-License-Identifier: Apache-2.0
"""`pyraseg segment --click`: what is typed is what is corrected."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.commands.console import main
from bundle.pyraseg.core.files import begin_run
from tests.helpers.click_models import ClickExport, Levels, export_clicks
from tests.helpers.dicom_files import write_series
from tests.helpers.onnx_paths import photograph, volume


@pytest.fixture(autouse=True)
def ended():
    yield
    begin_run()


def photo(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((100, 160, 3), 40, np.uint8)
    pixels[30:70, 90:140] = 220
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder / "photo.png"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> ClickExport:
    plain = Levels((-1.6, 0.5, 2.0))
    return export_clicks(tmp_path_factory.mktemp("photographs"), photograph(), channels=3, plain=plain)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--click", "12"], "'12' is not 2 numbers with commas between"),
        (["--click", "1,2", "--box", "1,2,3"], "'1,2,3' is not 4 numbers"),
        (["--background", "a,b"], "'a,b' is not 2 numbers"),
    ],
)
def test_what_is_no_place_is_refused(words, text, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main(["segment", str(photo(tmp_path / "in")), str(tmp_path / "out"), *words])
    assert error.value.code == 2 and text in capsys.readouterr().err


def test_what_cannot_be_corrected_is_refused(tmp_path, capsys):
    source, target = str(photo(tmp_path / "in")), str(tmp_path / "out")
    for words, text in [
        (["--slice", "2"], "--slice and --class are of clicks"),
        (["--click", "3,4", "--model", "nothing"], "There is no exported model 'nothing' that takes clicks"),
        (["--click", "3,4", "--model", "lungs"], "`pyraseg export NAME` writes it"),
        (["--click", "3,4", "--model", "none.onnx"], "There is no model at none.onnx"),
        (["--click", "3,4", "--model", "models/dermoscopy_fast.int8.onnx"], "takes no clicks"),
        (["--click", "3,4", "--model", "x.onnx", "--outputs", "labels"], "one of png, nifti and seg, not 'labels'"),
        (["--click", "3,4", "--model", "x.onnx", "--device", "cpu"], "not --device"),
    ]:
        assert main(["segment", source, target, *words]) == 1
        assert text in capsys.readouterr().err, words
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_a_photograph_is_corrected(photographs, tmp_path, capsys):
    source, target, model = photo(tmp_path / "in"), tmp_path / "out", str(photographs.path)
    assert main(["segment", str(source), str(tmp_path / "plain"), "--model", model]) == 0
    words = ["--click", "20,15", "140,90", "--background", "115,50", "--class", "spleen", "--model", model]
    assert main(["segment", str(source), str(target), *words]) == 0
    plain, found = (np.asarray(Image.open(folder / "photo.png")) for folder in (tmp_path / "plain", target))
    assert plain[50, 115] == 2 and found[50, 115] != 2 and plain[15, 20] != 2
    assert found[15, 20] == found[90, 140] == 2 and found[35, 95] == plain[35, 95] == 2
    assert "3 click(s), 0 box(es)" in capsys.readouterr().out
    assert main(["segment", str(source), str(target), "--box", "5,60,30,90", "--model", model]) == 0
    boxed = np.asarray(Image.open(target / "photo.png"))
    assert boxed[75, 15] == 1 and boxed[15, 20] == plain[15, 20]
    for words, text in [
        (["--click", "160,3"], "outside the image of 160 columns and 100 rows"),
        (["--click", "3,3", "--class", "lung"], "finds liver, spleen, not 'lung'"),
        (["--click", "3,3", "--slice", "2"], "There is no slice 2"),
    ]:
        assert main(["segment", str(source), str(tmp_path / "none"), *words, "--model", model]) == 1
        assert text in capsys.readouterr().err
    Image.open(source).save(source.with_name("another.png"))
    assert main(["segment", str(source.parent), str(target), "--click", "3,3", "--model", model]) == 1
    assert "Clicks are of one image" in capsys.readouterr().err


@pytest.mark.slow
def test_a_slice_of_a_series_is_corrected_and_its_neighbors(tmp_path, capsys):
    model = export_clicks(tmp_path / "model", volume({"center": 0, "width": 400}), channels=1,
                          plain=Levels((0.0, 0.9, -0.9))).path  # fmt: skip
    values = np.zeros((7, 60, 90), np.int16)
    values[:, 10:40, 50:80] = 150
    write_series(tmp_path / "in", values, spacing=(1.7, 1.7), slice_step=3)
    words = ["segment", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model), "--background", "60,20"]
    assert main(words) == 1
    assert "The series has 7 slices. Say which one was clicked: --slice N" in capsys.readouterr().err
    assert main([*words, "--slice", "2"]) == 0
    found = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "out" / "in_labels").iterdir())]
    assert [int(plane[20, 60]) for plane in found] == [0] * 7 and all(plane[35, 75] == 1 for plane in found)
    assert "7 slices corrected" in capsys.readouterr().out
    assert main([*words, "--slice", "7", "--outputs", "seg"]) == 0
    seg = hd.seg.segread(tmp_path / "out" / "in_seg.dcm")
    assert {str(item.SegmentAlgorithmType) for item in seg.SegmentSequence} == {"SEMIAUTOMATIC"}

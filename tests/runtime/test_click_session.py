# SPDX-License-Identifier: Apache-2.0
"""A click corrects what is under it, wherever and however the image lies, and is taken back without a trace."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.deployment.recipe import Decision
from bundle.pyraseg.runtime.click_model import ClickModel
from bundle.pyraseg.runtime.click_session import ClickSession
from bundle.pyraseg.runtime.images import segment
from bundle.pyraseg.runtime.model import Model
from tests.helpers.click_models import ClickExport, Levels, export_clicks
from tests.helpers.dicom_files import write_series
from tests.helpers.onnx_paths import photograph, volume
from tests.helpers.runtime_series import SERIES, SHAPE, series

ROWS, COLUMNS = 120, 200


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> ClickExport:
    """Return a model of 64 x 48 that finds by red: none, dark and bright; with a threshold it would find two."""
    plain = Levels((-2.0, 0.0, 2.0))
    return export_clicks(tmp_path_factory.mktemp("photographs"), photograph(), channels=3, plain=plain)


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> ClickExport:
    """Return a model of slices, with a neighbor on either side, that finds values above 90 and below -500."""
    shown = volume({"center": 90, "width": 180}, context_slices=1)
    levels = Levels((0.0, 0.9, -3.0))
    return export_clicks(tmp_path_factory.mktemp("slices"), shown, channels=3, plain=levels)


def photo(folder: Path) -> Path:
    """Write a photograph that is bright in one corner, and no two of whose corners or sides are alike."""
    pixels = np.full((ROWS, COLUMNS, 3), 20, np.uint8)
    pixels[:, 60:90] = 120
    pixels[80:, 130:] = 250
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder / "photo.png"


def middle(mask: np.ndarray) -> tuple[float, float]:
    """Return the center of a mask, (column, row)."""
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


@pytest.mark.parametrize("place", [(20, 15), (180, 20), (30, 100), (100, 60)])
def test_a_click_is_a_disc_where_it_was_clicked(place, photographs, tmp_path):
    session = ClickSession(ClickModel(photographs.path, threads=1), str(photo(tmp_path)))
    before = session.labels().copy()
    np.testing.assert_array_equal(
        before, next(segment(Model(photographs.path, threads=1), str(photo(tmp_path))).slices)
    )
    structure = 2 if before[place[::-1]] != 2 else 1
    assert session.refine([(*place, True)], structure=structure) == [0]
    changed = session.labels() != before
    assert np.abs(np.subtract(middle(changed), place)).max() < 2
    assert (session.labels()[changed] == structure).all()
    rows, columns = np.nonzero(changed)  # a disc of 5 pixels at 64 x 48, and half a pixel around it
    assert np.ptp(columns) + 1 == pytest.approx(11 * COLUMNS / 64, abs=4)
    assert np.ptp(rows) + 1 == pytest.approx(11 * ROWS / 48, abs=4)
    assert session.undo() == [0] and session.undo() == []
    np.testing.assert_array_equal(session.labels(), before)


def test_a_click_on_the_background_takes_away_and_a_box_fills(photographs, tmp_path):
    session = ClickSession(ClickModel(photographs.path, threads=1), str(photo(tmp_path)))
    before = session.labels().copy()
    session.refine([(170, 100, False)], structure=2)
    assert before[100, 170] == 2 and session.labels()[100, 170] != 2 and session.clicks == 1
    session.refine([(150, 90, False), (190, 110, False)], structure=2)
    assert session.clicks == 3 and session.labels()[90, 150] != 2
    session.refine(box=(30, 50, 5, 20), structure=1)
    box = session.labels()[20:51, 5:31]
    assert (box == 1).mean() > 0.9 and (session.labels()[:18, :3] == before[:18, :3]).all() and session.boxes == 1
    for _ in range(3):
        session.undo()
    np.testing.assert_array_equal(session.labels(), before)
    assert session.clicks == session.boxes == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "sagittal", "flipped", "turned", "downwards"])
def test_a_click_on_a_slice_of_any_orientation(name, slices, tmp_path):
    place = 9, 33
    folder = series(tmp_path / "in", name)
    session = ClickSession(ClickModel(slices.path, threads=1), str(folder))
    assert session.shape == SHAPE
    automatic = list(segment(Model(slices.path, threads=2), str(folder)).slices)
    np.testing.assert_array_equal([session.labels(k) for k in range(SHAPE[0])], automatic)
    assert session.refine([(*place, True)], structure=2, number=4, spread=False) == [4]
    changed = session.labels(4) != automatic[4]
    added = changed & (session.labels(4) == 2)
    assert added.sum() > 0.95 * changed.sum() > 100  # between the two, a pixel may be of the third class
    assert np.abs(np.subtract(middle(session.labels(4) == 2), place)).max() < 3
    np.testing.assert_array_equal([session.labels(k) for k in (0, 1, 2, 3, 5)], [*automatic[:4], automatic[5]])
    assert np.array_equal(session.pixels(4), ClickSession(ClickModel(slices.path, threads=1), str(folder)).pixels(4))


def test_slices_are_shown_as_they_are_stored(slices, tmp_path):
    stored = np.arange(4 * 30 * 40, dtype=np.int16).reshape(4, 30, 40)
    for name in ("flipped", "turned"):
        write_series(tmp_path / name, stored, **SERIES[name], spacing=(1.3, 0.9), slice_step=2.5)
        session = ClickSession(ClickModel(slices.path, threads=1), str(tmp_path / name))
        order = [session.pixels(k)[0, 0] for k in range(4)]
        assert sorted(order) == stored[:, 0, 0].tolist()
        np.testing.assert_array_equal(session.pixels(1), stored[stored[:, 0, 0].tolist().index(order[1])])


def balls(folder: Path, depth: int = 12, last: int = 8) -> Path:
    """Write a series with a square of 60 x 60 pixels that the model does not find, in its first slices."""
    values = np.full((depth, 80, 100), 30, np.int16)
    values[:last, 10:70, 20:80] = 60
    write_series(folder, values, spacing=(1.7, 1.7), slice_step=3)
    return folder


def test_a_click_goes_on_to_the_neighbors_and_ends_where_it_has_nothing_to_say(slices, tmp_path):
    session = ClickSession(ClickModel(slices.path, threads=1), str(balls(tmp_path / "in", depth=24)))
    assert not any(session.labels(k).any() for k in range(24))
    changed = session.refine([(50, 40, True)], structure=1, number=10)
    assert changed == list(range(2, 19))  # as far as it reaches
    for number in changed:
        assert session.labels(number)[40, 50] == 1
    # What has been corrected there by somebody, stays; the others know the second click already.
    session.refine([(20, 20, True)], structure=1, number=12, spread=False)
    own = session.labels(12).copy()
    assert session.refine([(52, 41, True)], structure=1, number=10) == [10]
    np.testing.assert_array_equal(session.labels(12), own)
    assert session.undo() == [10] and session.undo() == [12] and session.undo() == changed
    assert not any(session.labels(k).any() for k in range(24))


@pytest.mark.slow
@pytest.mark.parametrize("decision", [Decision(0.6, 0.2), Decision(2.0, 0.7), Decision(1.7, None)])
def test_logits_become_labels_as_in_the_graph(decision, tmp_path):
    """A click that changes nothing leaves the labels as they are, whatever the threshold and the temperature."""
    found = export_clicks(tmp_path, photograph(), channels=3, plain=Levels((-1.0, 1.0)), classes=2, decision=decision,
                          class_names='["background", "lesion"]')  # fmt: skip
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (5, 8, 3), np.uint8)
    image = Image.fromarray(coarse).resize((COLUMNS, ROWS), Image.Resampling.BICUBIC)
    image.save(tmp_path / "photo.png")
    session = ClickSession(ClickModel(found.path, threads=1), str(tmp_path / "photo.png"))
    same = session._on_image(session._look(0).logits)
    assert 0.05 < session.labels().mean() < 0.95
    assert (same == session.labels()).mean() > 0.9995


def test_what_cannot_be_a_click_is_refused(photographs, slices, tmp_path):
    session = ClickSession(ClickModel(photographs.path, threads=1), str(photo(tmp_path)))
    for call, text in [
        (lambda: session.refine([(COLUMNS, 3, True)]), "column 200 and row 3 is outside the image of 200 columns"),
        (lambda: session.refine([(3, -1, True)]), "outside the image"),
        (lambda: session.refine(box=(3, 3, 300, 20)), "column 300 and row 20 is outside"),
        (lambda: session.refine(), "give clicks or a box"),
        (lambda: session.refine([(3, 3, True)], structure=3), "finds liver, spleen"),
        (lambda: session.refine([(3, 3, True)], number=1), "There is no slice 2"),
        (lambda: session.model.chosen("livr"), "finds liver, spleen, not 'livr'"),
        (lambda: ClickModel(Path("models/dermoscopy_fast.int8.onnx"), threads=1), "takes no clicks"),
        (lambda: ClickSession(session.model, str(tmp_path / "x.nii.gz")), "no DICOM, PNG or JPEG"),
    ]:
        with pytest.raises(PyrasegError, match=text):
            call()
    assert session.refine([(0, 0, True), (199, 119, True), (0, 0, True)], structure=1) == [0]
    assert session.labels()[0, 0] == session.labels()[119, 199] == 1
    other = slices.path.with_name("small.click.onnx")
    other.rename(other.with_name("away.onnx"))
    with pytest.raises(PyrasegError, match=r"There is no model at .*small\.click\.onnx"):
        ClickModel(slices.path, threads=1)

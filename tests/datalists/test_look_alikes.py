# SPDX-License-Identifier: Apache-2.0
"""Frames of one scan that moved and were deformed are found; strangers are not, however alike a set is."""

import csv
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from bundle.pyraseg.commands import datalist
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.datalist import load_cases
from bundle.pyraseg.datalists.duplicates import detail, find_duplicates
from bundle.pyraseg.datalists.look_alikes import find_look_alikes, tile_correlation
from tests.helpers.textures import texture, volume

#: The part of a scene that a frame shows, and by how much of it the second frame has moved: 20 and 12 of 120 x 160.
HEIGHT, WIDTH = 120, 160
ROWS, COLUMNS = 12, 20
STRANGERS = 20


def scene(seed: int) -> np.ndarray:
    """Return a scene, larger than a frame."""
    return texture(seed, (HEIGHT + ROWS, WIDTH + COLUMNS)).astype(float)


def frames(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two frames of one scene: the second has moved, is bent by some pixels, darker, and has other noise."""
    random = np.random.default_rng(1000 + seed)
    whole = scene(seed)
    bend = np.stack([gaussian_filter(random.normal(size=whole.shape), 15) for _ in range(2)])
    bend *= 5 / abs(bend).max(axis=(1, 2), keepdims=True)
    bent = map_coordinates(whole, np.indices(whole.shape) + bend, mode="nearest")
    pair = whole[:HEIGHT, :WIDTH], 0.7 * bent[ROWS:, COLUMNS:]
    noisy = [frame + random.normal(0, 8, frame.shape) for frame in pair]
    return np.uint8(noisy[0].clip(0, 255)), np.uint8(noisy[1].clip(0, 255))


def write_set(folder: Path, *, common: float = 0, framed: int = 0) -> list[Path]:
    """Write strangers, of which 3 and 17 have a second frame `b`; `common` of each picture is the same in all."""
    folder.mkdir(parents=True)
    template = texture(999, (HEIGHT, WIDTH))
    for number in range(STRANGERS):
        for name, frame in zip("ab", frames(number), strict=True):
            if name == "a" or number in (3, 17):
                mixed = np.uint8((1 - common) * frame + common * template)
                Image.fromarray(np.pad(mixed, ((framed, framed), (0, 0)))).save(folder / f"{number:02}{name}.png")
    return sorted(folder.iterdir())


def stems(images: list[Path]) -> list[tuple[str, str]]:
    return sorted((images[pair.first].stem, images[pair.second].stem) for pair in find_look_alikes(images).pairs)


@pytest.mark.slow
@pytest.mark.parametrize("framed", [0, 30], ids=["whole", "with a black border"])
def test_frames_that_moved_are_found_and_strangers_are_not(framed, tmp_path):
    images = write_set(tmp_path / "set", framed=framed)
    assert stems(images) == [("03a", "03b"), ("17a", "17b")]
    assert find_duplicates(images) == []  # so close, and no copies


@pytest.mark.slow
def test_what_all_pictures_have_in_common_makes_no_pair(tmp_path):
    images = write_set(tmp_path / "set", common=0.4)
    found = find_look_alikes(images)
    assert found.usual > 0.32  # of plain strangers 0.29
    assert [(images[pair.first].stem, images[pair.second].stem) for pair in found.pairs] in (
        [("03a", "03b"), ("17a", "17b")],
        [("17a", "17b"), ("03a", "03b")],
    )


def test_pictures_of_very_different_shapes_never_cover_each_other():
    square, strip = (detail(texture(n, shape).astype(float), 1, 4) for n, shape in enumerate([(64, 64), (20, 205)]))
    assert tile_correlation(square, strip) == tile_correlation(strip, square) == -1
    assert tile_correlation(square, square) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_pictures_without_structure_are_no_look_alikes(tmp_path):
    write_set(tmp_path / "set")
    for name in ("flat0", "flat1"):
        Image.fromarray(np.full((HEIGHT, WIDTH), 90, np.uint8)).save(tmp_path / "set" / f"{name}.png")
    images = sorted((tmp_path / "set").iterdir())
    assert stems(images) == [("03a", "03b"), ("17a", "17b")]
    with pytest.raises(PyrasegError, match="they have no structure"):
        find_look_alikes(10 * images[-2:])


def test_frames_of_a_single_scan_cannot_be_told_from_strangers(tmp_path):
    whole = texture(0, (HEIGHT + STRANGERS, WIDTH))
    for number in range(STRANGERS):
        Image.fromarray(whole[number : number + HEIGHT]).save(tmp_path / f"{number:02}.png")
    with pytest.raises(PyrasegError, match=r"Half of the pairs .* correlate by 0\.\d+ or more, .*name the patients"):
        find_look_alikes(sorted(tmp_path.iterdir()))


def test_too_few_pictures_say_nothing(tmp_path):
    with pytest.raises(PyrasegError, match="19 pictures do not tell how alike strangers are; 20 do"):
        find_look_alikes(write_set(tmp_path / "set")[:19])


def test_a_volume_is_refused_by_name(tmp_path):
    images = write_set(tmp_path / "set")
    nib.save(nib.Nifti1Image(volume(0), np.eye(4)), tmp_path / "volume.nii.gz")
    with pytest.raises(PyrasegError, match=r"volume\.nii\.gz is a volume of 40 x 48 x 24 voxels"):
        find_look_alikes([*images, tmp_path / "volume.nii.gz"])


@pytest.mark.parametrize("spreads", [0, -1, float("nan")])
def test_refused_thresholds(spreads):
    with pytest.raises(PyrasegError, match="must be above 0"):
        find_look_alikes([], spreads=spreads)


# --- the program ---


@pytest.mark.slow
def test_frames_of_one_scan_are_one_patient(tmp_path, capsys):
    images = write_set(tmp_path / "images")
    (tmp_path / "masks").mkdir()
    for path in images:
        Image.fromarray(np.uint8(np.indices((HEIGHT, WIDTH))[0] < 9)).save(tmp_path / "masks" / path.name)
    for seed in (0, 1):
        datalist.main([str(tmp_path), "--together", "--seed", str(seed), "--overwrite"])
        patients = {
            Path(item["image"]).stem: (part, item["patient"])
            for part, items in load_cases(tmp_path).items()
            for item in items
        }
        assert patients["03a"] == patients["03b"] and patients["17a"] == patients["17b"]
        assert len({patient for _, patient in patients.values()}) == STRANGERS
    out = capsys.readouterr().out
    assert "2 pairs of pictures look like frames of one scan" in out
    assert "4 cases are in 2 groups, the largest of 2" in out
    rows = list(csv.DictReader((tmp_path / "look_alikes.csv").open()))
    assert {(row["first"], row["second"]) for row in rows} == {
        ("images/03a.png", "images/03b.png"), ("images/17a.png", "images/17b.png"),
    }  # fmt: skip
    assert all(0.3 < float(row["correlation"]) < 1 for row in rows)
    datalist.main([str(tmp_path), "--overwrite"])  # not asked for: nothing is told of them
    assert not (tmp_path / "look_alikes.csv").exists()
    assert "frames of one scan" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_chain_of_strangers_is_refused_and_the_number_that_breaks_it_is_told(tmp_path):
    images = write_set(tmp_path / "set")
    with pytest.raises(PyrasegError, match=r"^2\d of 22 pictures would be one group of look-alikes\.") as told:
        find_look_alikes(images, spreads=0.01)
    (number,) = re.findall(r"give --together ([\d.]+) or more", str(told.value))
    joined = find_look_alikes(images, spreads=float(number)).pairs
    assert ("03a", "03b") in {(images[pair.first].stem, images[pair.second].stem) for pair in joined}
    with pytest.raises(PyrasegError, match="would be one group"):
        find_look_alikes(images, spreads=float(number) - 0.1)


@pytest.mark.slow
def test_look_alikes_that_leave_too_few_patients_are_told(tmp_path):
    images = write_set(tmp_path / "images")
    (tmp_path / "masks").mkdir()
    for path in images:
        Image.fromarray(np.uint8(np.indices((HEIGHT, WIDTH))[0] < 9)).save(tmp_path / "masks" / path.name)
    with pytest.raises(PyrasegError, match=r"(?s)20 patients cannot be split into 21 parts.*2 pairs of pictures look"):
        datalist.main([str(tmp_path), "--together", "--folds", "21"])


# --- real data ---


@pytest.mark.slow
def test_frames_of_nerves_as_anyone_sees_them(real_data):
    """Pairs that the search for copies misses, among pictures of other scans."""
    known = [("0049", "0128"), ("0134", "0137"), ("0154", "0179"), ("0185", "0189"), ("0195", "0229"), ("0212", "0221")]
    strangers = "0001 0005 0008 0011 0016 0019 0020 0026 0035 0040 0052 0064"
    names = sorted([*strangers.split(), *(name for pair in known for name in pair)])
    images = [real_data / "ultrasound_nerves/images" / f"{name}.png" for name in names]
    assert find_duplicates(images) == []
    assert stems(images) == known


@pytest.mark.slow
def test_patients_of_cine_are_found_without_their_names(real_data):
    """Neighboring slices of one heart, of 9 patients: nearly all are joined, and no two patients."""
    of_patient: dict[str, list[Path]] = {}
    for path in sorted((real_data / "mr_heart/images").iterdir()):
        of_patient.setdefault(path.name.partition("-IM-")[0], []).append(path)
    images = [path for paths in list(of_patient.values())[::4][:9] for path in paths[:6]]
    patient = [path.name.partition("-IM-")[0] for path in images]
    pairs = find_look_alikes(images).pairs
    assert all(patient[pair.first] == patient[pair.second] for pair in pairs)
    assert len({place for pair in pairs for place in (pair.first, pair.second)}) > 0.8 * len(images)

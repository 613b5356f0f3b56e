# SPDX-License-Identifier: Apache-2.0
"""Public sets from a real HTTP server, with small files in the layout that each is published in."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.datalist import load_cases
from bundle.pyraseg.datalists.splitting import SPLITS
from bundle.pyraseg_tools.commands.download import main
from bundle.pyraseg_tools.datasets.public import download
from bundle.pyraseg_tools.datasets.public.recipes import RECIPES
from tests.helpers.archives import add_link, make_tar, make_zip
from tests.helpers.textures import texture, volume
from tests.helpers.web_site import Site, serve

ROOT = Path(__file__).resolve().parents[2]
CASES = range(1, 9)


def encoded(values: np.ndarray, suffix: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, {"jpg": "JPEG", "png": "PNG"}[suffix])
    return file.getvalue()


def mask(start: int, stop: int) -> np.ndarray:
    values = np.zeros((60, 80), np.uint8)
    values[20:40, start:stop] = 255
    return values


def isic(images: str, masks: str) -> dict[str, dict[str, bytes]]:
    return {
        f"{images}.zip": {
            f"{images}/ATTRIBUTION.txt": b"-",
            **{f"{images}/ISIC_{n:07}.jpg": encoded(texture(n), "jpg") for n in CASES},
            **{f"{images}/ISIC_{n:07}_superpixels.png": encoded(texture(n), "png") for n in CASES},
        },
        f"{masks}.zip": {f"{masks}/ISIC_{n:07}_segmentation.png": encoded(mask(10, 50), "png") for n in CASES},
    }


def decathlon(task: str, organ: str) -> dict[str, dict[str, bytes]]:
    def nifti(values: np.ndarray) -> bytes:
        return nib.Nifti1Image(values, np.eye(4)).to_bytes()

    label = np.zeros((40, 48, 24), np.uint8)
    label[10:20, 10:20, 5:9] = 1
    names = [f"{organ}_{n}.nii" for n in CASES]  # the real ones are .nii.gz
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    content = {"name": organ, "training": training, "test": [f"./imagesTs/{organ}_1.nii"]}
    files = {"dataset.json": json.dumps(content).encode(), "._dataset.json": b"litter", f"imagesTs/{organ}_1.nii": b""}
    files |= {f"imagesTr/{name}": nifti(volume(n)) for n, name in zip(CASES, names, strict=True)}
    files |= {f"labelsTr/{name}": nifti(label) for name in names}
    return {f"{task}.tar": {f"{task}/{name}": content for name, content in files.items()}}


def montgomery() -> dict[str, dict[str, bytes]]:
    files = {}
    for n in CASES:
        name = f"MCUCXR_{n:04}_0"
        files[f"CXR_png/{name}.png"] = encoded(texture(n, (60, 80)), "png")
        files[f"ManualMask/leftMask/{name}.png"] = encoded(mask(10, 30), "png")
        files[f"ManualMask/rightMask/{name}.png"] = encoded(mask(45, 60), "png")
        files[f"ClinicalReadings/{name}.txt"] = b"normal"
    files = {f"MontgomerySet/{name}": content for name, content in files.items()}
    return {"NLM-MontgomeryCXRSet.zip": {**files, "__MACOSX/MontgomerySet/._CXR_png": b"litter"}}


def shenzhen() -> dict[str, dict[str, bytes]]:
    files = {f"ChinaSet_AllFiles/CXR_png/CHNCXR_{n:04}_0.png": encoded(texture(n, (60, 80)), "png") for n in CASES}
    return {"ChinaSet_AllFiles.zip": {**files, "ChinaSet_AllFiles/NLM-ChinaCXRSet-ReadMe.docx": b"-"}}


def chase() -> dict[str, dict[str, bytes]]:
    files = {}
    for n, eye in ((n, eye) for n in CASES for eye in "LR"):
        name = f"Image_{n:02}{eye}"
        files[f"{name}.jpg"] = encoded(texture(2 * n + (eye == "R"), (60, 80)), "jpg")
        files[f"{name}_1stHO.png"] = encoded(mask(10, 50), "png")
        files[f"{name}_2ndHO.png"] = encoded(mask(12, 50), "png")
    return {"CHASEDB1.zip": files}


#: Pictures of nerves: enough to tell how alike strangers are.
FRAMES = range(20)


def usgra() -> dict[str, dict[str, bytes]]:
    """Return the archive; the last picture is another frame of what the first one shows."""
    files = {}
    for n in FRAMES:
        whole = texture(0 if n == FRAMES[-1] else n, (64, 96))
        frame = whole[4:, 16:] if n == FRAMES[-1] else whole[:60, :80]
        files |= {f"images/{n:04}.png": encoded(frame, "png"), f"masks/{n:04}.png": encoded(mask(10, 50) // 255, "png")}
    files |= {f"test/{kind}/0099.png": encoded(mask(10, 50), "png") for kind in ("images", "masks")}
    (archive,) = RECIPES["nerves"].archives
    root = f"usgra-seg-{archive.name.removesuffix('.zip')}"
    return {
        archive.name: {f"{root}/README.md": b"-", **{f"{root}/dataset/{name}": held for name, held in files.items()}}
    }


SETS = {
    "isic2018": isic("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    "isic2017": isic("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
    "spleen": decathlon("Task09_Spleen", "spleen"),
    "hippocampus": decathlon("Task04_Hippocampus", "hippocampus"),
    "vessels": chase(),
    "nerves": usgra(),
    "montgomery": montgomery(),
    "shenzhen": shenzhen(),
}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a server with small archives of every set; where a recipe pins a checksum, it pins that of the small one.

    Transfers that break off go on without a pause.
    """
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    site = Site()
    for name, recipe in RECIPES.items():
        archives = []
        for archive in recipe.archives:
            make = make_tar if archive.name.endswith(".tar") else make_zip
            content = make(tmp_path / "archive", SETS[name][archive.name]).read_bytes()
            site.files[f"/{archive.name}"] = content
            algorithm = archive.checksum and archive.checksum.partition(":")[0]
            pinned = algorithm and f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
            archives.append(replace(archive, checksum=pinned))
        monkeypatch.setitem(RECIPES, name, replace(recipe, archives=tuple(archives)))
    (tmp_path / "archive").unlink()
    with serve(site):
        yield site


def prepare(name: str, site: Site, tmp_path: Path, *more: str) -> Path:
    folder = tmp_path / "sets" / name
    options = ["--output-dir", str(folder), "--download-dir", str(tmp_path / "downloads"), "--mirror", site.url]
    if name == "shenzhen" and "--masks" not in more:
        masks = {f"mask/CHNCXR_{n:04}_0_mask.png": encoded(mask(10, 60), "png") for n in CASES if n != 3}
        more = (*more, "--masks", str(make_zip(tmp_path / "masks.zip", masks)))
    main([name, *options, *more])
    return folder


def test_pictures_of_cine_become_slices(tmp_path, capsys):
    """Each patient is in one part, and the pixels are those of the pictures, 1.37 mm wide."""
    given = tmp_path / "given"
    pictures = {f"SC-{n:02}-IM-0001-{k:04}.png": texture(10 * n + k, (60, 80)) for n in CASES for k in (7, 8)}
    for name, picture in pictures.items():
        for folder, content in (("images", picture), ("masks", mask(10, 30))):
            (given / folder).mkdir(parents=True, exist_ok=True)
            (given / folder / name).write_bytes(encoded(content, "png"))
    main(["heart", "--output-dir", str(tmp_path / "heart"), "--masks", str(given)])
    parts = load_cases(tmp_path / "heart")
    patients = [{Path(case["image"]).name.partition("-IM-")[0] for case in cases} for cases in parts.values()]
    assert sum(map(len, patients)) == len(set().union(*patients)) == len(CASES)
    for case in (case for cases in parts.values() for case in cases):
        name = f"{Path(case['image']).name.partition('.')[0]}.png"
        image, label = nib.load(case["image"]), nib.load(case["label"])
        picture, masked = (np.asarray(Image.open(given / folder / name)) for folder in ("images", "masks"))
        np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0].T, picture)
        np.testing.assert_array_equal(np.asarray(label.dataobj)[..., 0].T, masked > 0)
        assert image.header.get_zooms() == pytest.approx((1.37, 1.37, 10))
    assert "configs/heart.json" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "heart"])
def test_downloads_unpacks_and_lists(name, mirror, tmp_path, capsys):
    mirror.breaks = [5000]  # the first transfer breaks off and goes on
    folder = prepare(name, mirror, tmp_path)
    assert mirror.asked[1][1] == "bytes=5000-"
    cases = load_cases(folder)
    count = {"shenzhen": len(CASES) - 1, "vessels": 2 * len(CASES), "nerves": len(FRAMES)}.get(name, len(CASES))
    assert sum(len(cases[part]) for part in SPLITS) == count
    assert all(cases[part] for part in SPLITS)
    source = (folder / "SOURCE.txt").read_text()
    assert RECIPES[name].license in source and all(archive.url in source for archive in RECIPES[name].archives)
    out = capsys.readouterr().out
    assert f"license: {RECIPES[name].license}" in out and f"configs/{RECIPES[name].task}.json" in out
    assert (ROOT / "configs" / f"{RECIPES[name].task}.json").is_file()
    assert not [path for path in folder.rglob("*") if path.name.startswith("._") or path.name == "__MACOSX"]
    asked = len(mirror.asked)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    prepare(name, mirror, tmp_path)  # again: nothing happens
    assert len(mirror.asked) == asked
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_both_eyes_of_a_child_are_in_one_part_and_the_first_observer_is_the_label(mirror, tmp_path):
    folder = prepare("vessels", mirror, tmp_path)
    parts = load_cases(folder)
    children = [{Path(case["image"]).stem[:-1] for case in cases} for cases in parts.values()]
    assert sum(map(len, children)) == len(set().union(*children)) == len(CASES)
    for case in (case for cases in parts.values() for case in cases):
        assert Path(case["label"]) == folder / "masks_1stHO" / f"{Path(case['image']).stem}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(case["label"])), mask(10, 50))
    second = np.asarray(Image.open(folder / "masks_2ndHO" / "Image_01L.png"))
    np.testing.assert_array_equal(second, mask(12, 50))


def test_frames_of_nerves_stay_together_and_pictures_set_aside_stay_out(mirror, tmp_path):
    folder = prepare("nerves", mirror, tmp_path)
    part_of = {Path(case["image"]).name: part for part, cases in load_cases(folder).items() for case in cases}
    assert sorted(part_of) == [f"{n:04}.png" for n in FRAMES]
    assert part_of["0000.png"] == part_of[f"{FRAMES[-1]:04}.png"]
    assert "1 pairs of pictures look like frames of one scan" in (folder / "summary.txt").read_text()
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["images", "masks"]


def test_masks_of_both_lungs_are_one(mirror, tmp_path):
    folder = prepare("montgomery", mirror, tmp_path)
    both = np.asarray(Image.open(folder / "masks" / "MCUCXR_0001_0.png"))
    np.testing.assert_array_equal(both, mask(10, 30) | mask(45, 60))


def test_the_published_checksums_refuse_other_files(mirror, tmp_path, monkeypatch):
    real = {name: recipe.archives for name, recipe in PUBLISHED.items()}
    for name in ("isic2018", "spleen", "montgomery"):
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], archives=real[name]))
        with pytest.raises(PyrasegError, match=r"is not the expected file: its (SHA256|MD5) is"):
            prepare(name, mirror, tmp_path)
        assert not (tmp_path / "sets" / name).exists()
    assert list((tmp_path / "downloads").iterdir()) == []


PUBLISHED = dict(RECIPES)


def test_a_zip_that_leads_out_of_its_folder_leaves_nothing(mirror, tmp_path):
    name = "ISIC-2017_Training_Data.zip"
    evil = make_zip(tmp_path / "evil", {**SETS["isic2017"][name], "../../evil.txt": b"evil"})
    mirror.files[f"/{name}"] = evil.read_bytes()
    with pytest.raises(PyrasegError, match="leads out of its folder"):
        prepare("isic2017", mirror, tmp_path)
    assert not (tmp_path / "sets").exists() or list((tmp_path / "sets").iterdir()) == []
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_link_in_a_tar_leaves_nothing(mirror, tmp_path, monkeypatch):
    content = add_link(make_tar(tmp_path / "evil", SETS["spleen"]["Task09_Spleen.tar"]), tarfile.SYMTYPE).read_bytes()
    mirror.files["/Task09_Spleen.tar"] = content
    (archive,) = RECIPES["spleen"].archives
    archive = replace(archive, checksum=f"md5:{hashlib.md5(content).hexdigest()}")
    monkeypatch.setitem(RECIPES, "spleen", replace(RECIPES["spleen"], archives=(archive,)))
    with pytest.raises(PyrasegError, match="which is a link or a device"):
        prepare("spleen", mirror, tmp_path)
    assert not (tmp_path / "sets").exists() or list((tmp_path / "sets").iterdir()) == []


def test_another_layout_is_told(mirror, tmp_path, monkeypatch):
    archive = RECIPES["montgomery"].archives[0]
    mirror.files[f"/{archive.name}"] = make_zip(tmp_path / "other", {"a/b.png": b"x"}).read_bytes()
    other = replace(RECIPES["montgomery"], archives=(replace(archive, checksum=None),))
    monkeypatch.setitem(RECIPES, "montgomery", other)
    with pytest.raises(PyrasegError, match="hold no CXR_png: their layout differs from the published one"):
        prepare("montgomery", mirror, tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shenzhen", ["--masks", "none.zip"], r"none.zip does not exist"),
        ("montgomery", ["--masks", "."], "is not needed"),
    ],
)
def test_masks_that_do_not_fit(name, options, message, mirror, tmp_path):
    with pytest.raises(PyrasegError, match=message):
        prepare(name, mirror, tmp_path, *options)


def test_masks_from_elsewhere_are_asked_for_before_anything_is_downloaded(mirror, tmp_path):
    with pytest.raises(PyrasegError, match=r"Get them from https://www\.kaggle\.com.* as --masks"):
        main(["shenzhen", "--output-dir", str(tmp_path / "a"), "--mirror", mirror.url])
    assert mirror.asked == []


def test_a_folder_with_something_else_stays(mirror, tmp_path):
    (tmp_path / "sets" / "spleen").mkdir(parents=True)
    (tmp_path / "sets" / "spleen" / "mine").touch()
    with pytest.raises(PyrasegError, match="exists and is not empty"):
        prepare("spleen", mirror, tmp_path)
    assert mirror.asked == []

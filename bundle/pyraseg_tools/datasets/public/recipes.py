# SPDX-License-Identifier: Apache-2.0
"""Public data sets: where they are, under which license, and how they become folders that a task trains on."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.apps import DecathlonDataset
from PIL import Image, ImageChops
from tqdm import tqdm

from bundle.pyraseg.core import PyrasegError, replacing, require_new
from bundle.pyraseg_tools.datasets.public.archives import extract
from bundle.pyraseg_tools.datasets.public.download import download

logger = logging.getLogger(__name__)

#: Tells where a prepared folder came from; a folder that has it is whole.
SOURCE = "SOURCE.txt"
#: Width of a pixel and thickness of a slice, mm, of the cine MR of Sunnybrook, where pictures have none: an assumption.
#: It holds for the patient whose DICOM files are known (1.367 and 10 mm).
CINE_PIXEL, CINE_STEP = 1.37, 10.0
_ISIC = "https://isic-challenge-data.s3.amazonaws.com"
_NLM = "https://openi.nlm.nih.gov/imgs/collections"
#: Revision of the repository that has the pictures, without those set aside for tests, in dataset/.
_USGRA = "b7429be38521a4b585e36ad6fd06983c63de9f83"


@dataclass(frozen=True)
class Archive:
    """A file to download; the checksum, as `download` takes it, is None where nobody publishes one."""

    url: str
    checksum: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Recipe:
    """A public set.

    Attributes:
        title: what it is.
        task: name of the overlay in configs/ that trains on it.
        license: of the data.
        cite: what its authors ask to be cited.
        archives: to download.
        arrange: brings what was unpacked into a layout that `find_pairs` knows.
        masks: where its masks, or its images and masks, come from, if they are no part of the archives and must be
            given.
        patient_pattern: finds the patient in the name of a case, see `collect_cases`; None: the set names none.
        together: whether pictures that look like frames of one scan stay in one part of the split.
        patterns: of the images and of the labels, where no layout of `find_pairs` fits.
    """

    title: str
    task: str
    license: str
    cite: str
    archives: tuple[Archive, ...]
    arrange: Callable[[Path], None]
    masks: str | None = None
    patient_pattern: str | None = None
    together: bool = False
    patterns: tuple[str, str] | None = None


def prepare(
    recipe: Recipe, folder: Path, downloads: Path, *, mirror: str | None = None, masks: Path | None = None
) -> None:
    """Download, check, unpack and arrange a public set; the folder appears whole or not at all.

    A folder that is whole already is left as it is.

    Args:
        recipe: of the set.
        folder: of the data set; must not exist, or be empty.
        downloads: folder of the archives, which are kept.
        mirror: address of a folder that has the same archives; their checksums stay the same.
        masks: archive or folder of the masks, for a recipe that lacks them.

    Raises:
        PyrasegError: a download or an archive is refused, masks are missing, or the folder holds something else.
    """
    if (folder / SOURCE).is_file():
        logger.warning("%s exists already and is not changed", folder)
        return
    require_new(folder)
    if recipe.masks and masks is None:
        raise PyrasegError(f"The masks of this set are not among its archives. Get them from {recipe.masks} and give "
                           "the archive or its folder as --masks.")  # fmt: skip
    if masks is not None and (not recipe.masks or not masks.exists()):
        what = "does not exist" if recipe.masks else "is not needed: the set has its own"
        raise PyrasegError(f"The path of masks {masks} {what}. Correct --masks.")
    lines = [recipe.title, f"License: {recipe.license}", f"Cite: {recipe.cite}"]
    for archive in recipe.archives:
        url = f"{mirror.rstrip('/')}/{archive.name}" if mirror else archive.url
        found = download(url, downloads / archive.name, checksum=archive.checksum)
        lines.append(f"{archive.url} sha256:{found}" + ("" if archive.checksum else " (no published checksum)"))
    with replacing(folder) as partial:
        partial.mkdir()
        for archive in recipe.archives:
            extract(downloads / archive.name, partial)
        if masks is not None and masks.is_dir():
            shutil.copytree(masks, partial / "given_masks")
        elif masks is not None:
            extract(masks, partial / "given_masks")
        recipe.arrange(partial)
        (partial / SOURCE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _as_it_is(folder: Path) -> None:
    """Leave the two folders of an ISIC challenge, whose names pair the files."""


def _decathlon(folder: Path) -> None:
    """Move the one folder of a Decathlon archive up."""
    (inner,) = _find(folder, "dataset.json")[:1]
    _move_up(inner.parent, folder)


def _montgomery(folder: Path) -> None:
    """Move the radiographs to images/ and lay the masks of both lungs together in masks/."""
    (images,), (left,), (right,) = (_find(folder, name)[:1] for name in ("CXR_png", "leftMask", "rightMask"))
    (folder / "masks").mkdir()
    for path in tqdm(sorted(left.glob("*.png")), desc="Joining masks", unit="mask", disable=None):
        with Image.open(path) as one, Image.open(right / path.name) as other:
            both = ImageChops.lighter(one.convert("L"), other.convert("L"))
        both.point(lambda value: 255 * (value > 0)).save(folder / "masks" / path.name)
    images.rename(folder / "images")


def _shenzhen(folder: Path) -> None:
    """Move the radiographs to images/ and the masks, `NAME_mask.png`, to masks/NAME.png."""
    (images,) = _find(folder, "CXR_png")[:1]
    masks = sorted((folder / "given_masks").rglob("*_mask.png"))
    if not masks:
        raise PyrasegError("The path of masks holds no file NAME_mask.png. Correct --masks.")
    (folder / "masks").mkdir()
    for path in masks:
        path.rename(folder / "masks" / f"{path.name.removesuffix('_mask.png')}.png")
    shutil.rmtree(folder / "given_masks")
    images.rename(folder / "images")


def _usgra(folder: Path) -> None:
    """Keep images/ and masks/ of what the authors train on; what they set aside for tests is left out."""
    (inner,) = _find(folder, "dataset")[:1]
    if (inner / "test").is_dir():
        shutil.rmtree(inner / "test")
    (images,), (masks,) = (_find(inner, name)[:1] for name in ("images", "masks"))
    rest = folder / inner.relative_to(folder).parts[0]
    images.rename(folder / "images")
    masks.rename(folder / "masks")
    shutil.rmtree(rest)


def _chase(folder: Path) -> None:
    """Move Image_NNx.jpg to images/ and the masks of both observers, Image_NNx_1stHO.png, to masks_1stHO/Image_NNx.png.

    Both eyes of a child have the same number: the left one is L, the right one R.
    """
    for pattern, name, suffix in (
        ("Image_*.jpg", "images", ""),
        ("Image_*_1stHO.png", "masks_1stHO", "_1stHO"),
        ("Image_*_2ndHO.png", "masks_2ndHO", "_2ndHO"),
    ):
        found = _find(folder, pattern)
        (folder / name).mkdir()
        for path in found:
            path.rename(folder / name / f"{path.stem.removesuffix(suffix)}{path.suffix}")


def _sunnybrook(folder: Path) -> None:
    """Write each picture and mask, PATIENT-IM-NUMBER.png, as a NIfTI of one slice, whose pixels are `CINE_PIXEL` wide.

    Pictures have no place in the patient: they are laid as if they were axial.
    """
    given = folder / "given_masks"
    (images,), (masks,) = (_find(given, name)[:1] for name in ("images", "masks"))
    affine = np.diag([-CINE_PIXEL, -CINE_PIXEL, CINE_STEP, 1])
    for source, name in ((images, "images"), (masks, "labels")):
        (folder / name).mkdir()
        for path in tqdm(sorted(source.glob("*.png")), desc=f"Writing {name}", unit="slice", disable=None):
            with Image.open(path) as picture:
                values = np.asarray(picture.convert("L"))
            values = (values > 0).astype(np.uint8) if name == "labels" else values
            nib.save(nib.Nifti1Image(values.T[..., None], affine), folder / name / f"{path.stem}.nii.gz")
    shutil.rmtree(given)


def _find(folder: Path, name: str) -> list[Path]:
    """Return what is called so below a folder, or refuse an archive in another layout."""
    found = sorted(folder.rglob(name))
    if not found:
        raise PyrasegError(
            f"The archives hold no {name}: their layout differs from the published one. Check their content."
        )
    return found


def _move_up(inner: Path, folder: Path) -> None:
    if inner != folder:
        for path in sorted(inner.iterdir()):
            path.rename(folder / path.name)
        inner.rmdir()


_JAEGER_2014 = (
    "Jaeger S et al. Two public chest X-ray datasets for computer-aided screening of pulmonary diseases. "
    "Quant Imaging Med Surg 4(6):475 (2014); Candemir S et al. IEEE Trans Med Imaging 33(2):577 (2014)"
)

#: Licenses are as generally known; the page of each set decides. Where a SHA-256 stands, it is the one that the
#: torch-em project pins for the same address; MONAI pins the MD5 of the Decathlon.
RECIPES = {
    "isic2018": Recipe(
        title="ISIC 2018 Task 1, skin lesions, training part (2594 images)",
        task="dermoscopy",
        license="CC0 1.0 (images of Tasks 1 and 2)",
        cite="Codella N et al. Skin Lesion Analysis Toward Melanoma Detection 2018. https://arxiv.org/abs/1902.03368; "
        "Tschandl P et al. The HAM10000 dataset. Sci Data 5:180161 (2018)",
        archives=(
            Archive(
                f"{_ISIC}/2018/ISIC2018_Task1-2_Training_Input.zip",
                "sha256:80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
            ),
            Archive(
                f"{_ISIC}/2018/ISIC2018_Task1_Training_GroundTruth.zip",
                "sha256:99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
            ),
        ),
        arrange=_as_it_is,
    ),
    "isic2017": Recipe(
        title="ISIC 2017 Part 1, skin lesions, training part (2000 images)",
        task="dermoscopy",
        license="CC0 1.0",
        cite="Codella N et al. Skin Lesion Analysis Toward Melanoma Detection: A Challenge at the 2017 ISBI. "
        "https://arxiv.org/abs/1710.05006",
        archives=(
            Archive(f"{_ISIC}/2017/ISIC-2017_Training_Data.zip"),
            Archive(f"{_ISIC}/2017/ISIC-2017_Training_Part1_GroundTruth.zip"),
        ),
        arrange=_as_it_is,
    ),
    "spleen": Recipe(
        title="Medical Segmentation Decathlon, Task09 Spleen (41 labeled CT scans)",
        task="spleen",
        license="CC BY-SA 4.0",
        cite="Antonelli M et al. The Medical Segmentation Decathlon. Nat Commun 13:4128 (2022)",
        archives=(Archive(DecathlonDataset.resource["Task09_Spleen"], f"md5:{DecathlonDataset.md5['Task09_Spleen']}"),),
        arrange=_decathlon,
    ),
    "hippocampus": Recipe(
        title="Medical Segmentation Decathlon, Task04 Hippocampus (260 labeled MR volumes)",
        task="hippocampus",
        license="CC BY-SA 4.0",
        cite="Antonelli M et al. The Medical Segmentation Decathlon. Nat Commun 13:4128 (2022)",
        archives=(
            Archive(
                DecathlonDataset.resource["Task04_Hippocampus"], f"md5:{DecathlonDataset.md5['Task04_Hippocampus']}"
            ),
        ),
        arrange=_decathlon,
    ),
    "vessels": Recipe(
        title="CHASE_DB1, fundus photographs of both eyes of 14 children (28, with the masks of two observers)",
        task="vessels",
        license="CC BY 4.0",
        cite="Fraz MM et al. An Ensemble Classification-Based Approach Applied to Retinal Blood Vessel Segmentation. "
        "IEEE Trans Biomed Eng 59(9):2538 (2012). doi:10.1109/TBME.2012.2205687",
        archives=(Archive("https://researchinnovation.kingston.ac.uk/files/40659508/CHASEDB1.zip"),),
        arrange=_chase,
        patient_pattern="^(.+)[LR]$",
        patterns=("images/{case}.jpg", "masks_1stHO/{case}.png"),
    ),
    "nerves": Recipe(
        title="USGRA, nerves and vessels in ultrasound-guided regional anesthesia (204 pictures to train on)",
        task="nerves",
        license="CC BY 4.0",
        cite="usgra-seg, ultrasound-guided regional anaesthesia semantic segmentation (2025). "
        "https://github.com/tmkand/usgra-seg",
        archives=(Archive(f"https://github.com/tmkand/usgra-seg/archive/{_USGRA}.zip"),),
        arrange=_usgra,
        together=True,
    ),
    "heart": Recipe(
        title="Sunnybrook Cardiac Data, short-axis cine MR as pictures, with masks of the left ventricle's cavity",
        task="heart",
        license="CC0 1.0",
        cite="Radau P et al. Evaluation framework for algorithms segmenting short axis cardiac MRI. MIDAS J (2009). "
        "doi:10.54294/g80ruo",
        archives=(),
        arrange=_sunnybrook,
        masks="a copy as PNG (folders images and masks, files PATIENT-IM-NUMBER.png in both)",
        patient_pattern="^(.+)-IM-",
    ),
    "montgomery": Recipe(
        title="NLM chest radiographs, Montgomery County (138 images with masks of both lungs)",
        task="lungs",
        license="public, NLM; its terms ask for the citation",
        cite=_JAEGER_2014,
        archives=(
            Archive(
                f"{_NLM}/NLM-MontgomeryCXRSet.zip",
                "sha256:54601e952315d8f67383e9202a6e145997ade429f54f7e0af44b4e158714f424",
            ),
        ),
        arrange=_montgomery,
    ),
    "shenzhen": Recipe(
        title="NLM chest radiographs, Shenzhen (662 images, 566 of them with masks from elsewhere)",
        task="lungs",
        license="public, NLM; its terms ask for the citation. Masks: as their page states",
        cite=f"{_JAEGER_2014}; masks: Stirenko S et al. ELNANO 2018. https://arxiv.org/abs/1803.01199",
        archives=(Archive(f"{_NLM}/ChinaSet_AllFiles.zip"),),
        arrange=_shenzhen,
        masks="https://www.kaggle.com/datasets/yoctoman/shcxr-lung-mask (an account is needed)",
    ),
}

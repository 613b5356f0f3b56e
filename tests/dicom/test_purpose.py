# SPDX-License-Identifier: Apache-2.0
"""Images of another kind than a model is for are refused, or told of; what a header does not say is not compared."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import (
    EnhancedMRImageStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
)

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.purpose import Purpose, plane_of
from bundle.pyraseg.dicom.series import SeriesStream
from bundle.pyraseg.transforms.reader import MedicalImageReader
from tests.configs.test_configs import PROGRAMS
from tests.helpers.configs import merged
from tests.helpers.dicom_files import AXIAL, CORONAL, SAGITTAL, item, write_enhanced, write_series

STACK = np.arange(3 * 8 * 10, dtype=np.uint16).reshape(3, 8, 10)
CT = {"modality": "CT", "body_part": ["ABDOMEN", "LIVER"], "plane": "axial"}
TILTED = (1, 0, 0, 0, np.cos(np.radians(18.5)), np.sin(np.radians(18.5)))
OBLIQUE = (1, 0, 0, 0, np.cos(np.radians(45)), np.sin(np.radians(45)))


def read(path: Path, **purpose: object) -> np.ndarray:
    return MedicalImageReader(purpose=Purpose(**(CT | purpose))).get_data([path])[0]


def test_what_fits_is_read_without_a_word(tmp_path, caplog):
    write_series(tmp_path, STACK, BodyPartExamined="ABDOMEN")
    assert read(tmp_path).shape == (10, 8, 3)
    assert caplog.text == ""


@pytest.mark.parametrize("modality", ["MR", "PT", "NM", "US", "CR"])
def test_another_modality_is_refused(tmp_path, modality):
    write_series(tmp_path, STACK, Modality=modality)
    with pytest.raises(PyrasegError) as error:
        read(tmp_path)
    message = str(error.value)
    assert f"its modality is {modality}, and the model is for CT." in message
    assert f"--modality {modality}" in message and "--refuse none" in message
    assert read(tmp_path, refuse="none").shape == read(tmp_path, modality=["CT", modality]).shape == (10, 8, 3)
    assert read(tmp_path, modality=None).shape == (10, 8, 3)


@pytest.mark.parametrize(
    "sop_class",
    [MRImageStorage, EnhancedMRImageStorage, PositronEmissionTomographyImageStorage, NuclearMedicineImageStorage],
)
def test_a_modality_that_is_not_stated_follows_from_the_sop_class(tmp_path, sop_class):
    write_series(tmp_path, STACK, Modality=None, SOPClassUID=sop_class)
    with pytest.raises(PyrasegError, match=r"its modality is (MR|PT|NM), and the model is for CT"):
        read(tmp_path)


def test_an_enhanced_object_of_another_modality(tmp_path):
    write_enhanced(tmp_path / "mr.dcm", STACK, np.arange(3)[:, None] * (0, 0, 1), Modality="MR")
    with pytest.raises(PyrasegError, match="its modality is MR"):
        read(tmp_path / "mr.dcm")


@pytest.mark.parametrize("part", ["HEAD", "Prostate", "CHEST", "L SPINE", "ABD"])
def test_another_body_part_is_told(tmp_path, caplog, part):
    write_series(tmp_path, STACK, BodyPartExamined=part)
    read(tmp_path)
    assert f"its body part is {part}, and the model is for ABDOMEN or LIVER. What it finds" in caplog.text
    with pytest.raises(PyrasegError, match="--refuse modality"):  # which stays in force
        read(tmp_path, refuse=["modality", "body_part"])


@pytest.mark.parametrize("part", ["ABDOMEN", "CHESTABDOMEN", "Upper Abdomen", "ABDOMEN^PELVIS", "LIVER", "", None])
def test_body_parts_that_may_be_the_one(tmp_path, caplog, part):
    write_series(tmp_path, STACK, BodyPartExamined=part)
    caplog.clear()
    read(tmp_path, refuse=["body_part"])
    assert caplog.text == ""


def test_the_region_of_an_enhanced_object(tmp_path, caplog):
    code = item(CodeValue="69536005", CodingSchemeDesignator="SCT", CodeMeaning="Head")
    anatomy = item(AnatomicRegionSequence=code, FrameLaterality="U")
    write_enhanced(
        tmp_path / "ct.dcm", STACK, np.arange(3)[:, None] * (0, 0, 1), shared={"FrameAnatomySequence": anatomy}
    )
    read(tmp_path / "ct.dcm")
    assert "its body part is Head, and the model is for ABDOMEN or LIVER" in caplog.text


PLANES = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}


@pytest.mark.parametrize("plane", PLANES)
def test_slices_in_another_plane_are_told(tmp_path, caplog, plane):
    write_series(tmp_path, STACK, orientation=PLANES[plane])
    other = "axial" if plane != "axial" else "coronal"
    read(tmp_path, plane=plane, refuse="plane")
    assert caplog.text == ""
    read(tmp_path, plane=other)
    assert f"its plane of the slices is {plane}, and the model is for {other}" in caplog.text
    with pytest.raises(PyrasegError, match=f"--plane {plane}"):
        read(tmp_path, plane=other, refuse="plane")


def test_a_tilted_gantry_is_axial(tmp_path, caplog):
    write_series(tmp_path / "tilted", STACK, orientation=TILTED, slice_step=(0, 0, 5))
    read(tmp_path / "tilted", refuse="plane")
    assert caplog.text == ""


def test_of_nifti_only_the_plane_is_known(tmp_path, caplog):
    sagittal = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "axial.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), sagittal), tmp_path / "sagittal.nii")
    read(tmp_path / "axial.nii", refuse=["modality", "body_part", "plane"])
    assert caplog.text == ""
    read(tmp_path / "sagittal.nii")
    assert "its plane of the slices is sagittal, and the model is for axial" in caplog.text


def test_nothing_is_said_of_a_nifti_that_does_not_say_how_it_lies(tmp_path, caplog):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, tmp_path / "no.nii")
    read(tmp_path / "no.nii", plane="sagittal", refuse="plane")
    assert "the model is for" not in caplog.text


def test_images_without_a_position_have_no_plane(tmp_path, caplog):
    write_series(tmp_path, STACK[:1], Modality="CR", ImagePositionPatient=None, ImageOrientationPatient=None)
    read(tmp_path, modality="CR", refuse=["modality", "plane"])
    assert caplog.text == ""


def test_pet_without_uptake_values_is_refused_on_request(tmp_path, caplog):
    write_series(tmp_path, STACK, Modality="PT", Units="BQML", DecayCorrection="START")
    read(tmp_path, modality="PT")
    assert "values in BQML" in caplog.text
    with pytest.raises(PyrasegError, match="its unit is BQML, and the model is for SUVbw"):
        read(tmp_path, modality="PT", refuse=["modality", "pet_units"])
    assert read(tmp_path, modality="PT", refuse="pet_units", pet_units="stored").max() == STACK.max()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"modality": "PET"}, "In DICOM, the modality PET is PT"),
        ({"modality": ["CT", "mri"]}, "the modality MRI is MR"),
        ({"plane": "axail"}, "The nearest name is 'axial'"),
        ({"refuse": "modalty"}, "The nearest name is 'modality'"),
        ({"pet_units": "SUVbw"}, "it is one of suv, stored"),
    ],
)
def test_what_cannot_be_meant_is_refused(said, answer):
    with pytest.raises(PyrasegError, match=answer):
        Purpose(**said)


def test_a_purpose_in_words():
    text = str(Purpose(modality=["PT"], body_part=["HEAD", "BRAIN"], plane="axial"))
    assert "modality PT; body part HEAD or BRAIN; plane of the slices axial; unit of PET SUVbw." in text
    assert "whatever modality" in str(Purpose())


def test_reading_slice_by_slice_tells_the_same(tmp_path):
    write_series(tmp_path, STACK, orientation=SAGITTAL, Modality="MR", BodyPartExamined="KNEE")
    facts = {"modality": "MR", "body_part": "KNEE", "plane": "sagittal", "units": ""}
    assert SeriesStream(tmp_path).facts == facts


@pytest.mark.parametrize(
    ("angle", "plane"), [(0, "axial"), (29, "axial"), (31, "oblique"), (59, "oblique"), (61, "coronal")]
)
def test_between_planes_slices_are_oblique(angle, plane):
    turn = np.radians(angle)
    affine = np.diag([1.0, 1, 3, 1])
    affine[:3, 1] = 0, np.cos(turn), np.sin(turn)
    affine[:3, 2] = 0, -np.sin(turn), np.cos(turn)
    assert plane_of(affine) == plane


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name.startswith(("train", "infer"))])
def test_every_task_reads_for_its_purpose(program):
    """The reader of each config has the purpose that its knobs say."""
    parser = merged(PROGRAMS[program])
    place = "train#preprocessing" if "train" in parser else "preprocessing"
    reader = parser.get_parsed_content(f"{place}#transforms#0")._loader.readers[-1]
    purpose = reader.purpose
    assert purpose.modality == (parser["modality"] or []) and purpose.refuse == ["modality"]
    assert purpose.plane == ([parser["plane"]] if parser["plane"] else [])


def test_several_aspects_may_be_one_text():
    assert Purpose(refuse="modality,plane").refuse == Purpose(refuse=["modality", "plane"]).refuse
    with pytest.raises(PyrasegError, match=r"'plan'.*The nearest name is 'plane'"):
        Purpose(refuse=["modality,plan"])

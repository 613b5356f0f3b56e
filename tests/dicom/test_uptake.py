# SPDX-License-Identifier: Apache-2.0
"""PET in standardized uptake values, by closed forms; and what keeps the unit that is stored.

70 kg and 350 MBq: half of the dose is left after one half-life, so 5000 Bq/ml are 5000 * 70000 / 175e6 = 2 g/ml.
"""

import logging
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor
from pydicom import dcmread
from pydicom.uid import (
    EnhancedPETImageStorage,
    ImplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
)

from bundle.pyraseg.dicom.luts import VoiWindow, apply_voi_lut
from bundle.pyraseg.dicom.series import SeriesStream, read_series
from bundle.pyraseg.transforms.reader import MedicalImageReader, from_dicom
from bundle.pyraseg_tools.datasets.voc.pictures import lossless_pictures, restore_values
from tests.helpers.dicom_files import item, save, write_enhanced, write_series

HALF_LIFE = 6600.0  # of the tests, s: 1 h 50 min
STORED = np.full((3, 4, 5), 1000, np.uint16)
GROUP, CREATOR = 0x7053, "Philips PET Private Group"


def injection(**changes: object) -> object:
    stated = {
        "RadiopharmaceuticalStartTime": "100000",
        "RadionuclideTotalDose": 350e6,
        "RadionuclideHalfLife": HALF_LIFE,
    }
    return item(**{name: value for name, value in (stated | changes).items() if value is not None})


def pet(folder: Path, *, stored: np.ndarray = STORED, per_slice=lambda index: {}, **changes: object) -> list[Path]:
    """Write three slices of 5000 Bq/ml, scanned at 11:50 on one day, injected 1 h 50 min before."""
    attributes = {
        "Modality": "PT", "SOPClassUID": PositronEmissionTomographyImageStorage, "Units": "BQML",
        "DecayCorrection": "START", "CorrectedImage": ["DECY", "ATTN", "SCAT"], "RescaleSlope": 5,
        "PatientWeight": 70, "SeriesDate": "20240101", "SeriesTime": "115000", "AcquisitionDate": "20240101",
        "AcquisitionTime": "115000", "RadiopharmaceuticalInformationSequence": injection(),
    }  # fmt: skip
    return write_series(folder, stored, per_slice=per_slice, **(attributes | changes))


def require(folder: Path, value: float, *, unit: str = "SUVbw") -> None:
    """Require one value everywhere, read whole and slice by slice."""
    image, stream = read_series(folder), SeriesStream(folder)
    assert (image.units, stream.units) == (unit, unit)
    np.testing.assert_allclose(image.pixels, value, rtol=2e-7)
    np.testing.assert_array_equal(np.stack(list(stream.slices())), image.pixels)


CASES = {
    "START, one half-life": ({}, 2.0),
    "ADMIN, no decay": ({"DecayCorrection": "ADMIN"}, 1.0),
    "ADMIN, without times": (
        {"DecayCorrection": "ADMIN", "SeriesTime": None, "AcquisitionTime": None,
         "RadiopharmaceuticalInformationSequence":
         injection(RadiopharmaceuticalStartTime=None, RadionuclideHalfLife=None)}, 1.0),
    "two half-lives": ({"SeriesTime": "134000", "AcquisitionTime": "134000"}, 4.0),
    "a fraction of a second": ({"SeriesTime": "115000.5", "AcquisitionTime": "115001"}, 2.0 * 2 ** (0.5 / HALF_LIFE)),
    "by its date and time": (
        {"RadiopharmaceuticalInformationSequence": injection(RadiopharmaceuticalStartTime=None,
         RadiopharmaceuticalStartDateTime="20240101100000.000000")}, 2.0),
    "in another time zone": (
        {"TimezoneOffsetFromUTC": "+0100", "RadiopharmaceuticalInformationSequence": injection(
         RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20240101090000+0000")}, 2.0),
    "before midnight, by the time alone": (
        {"SeriesTime": "010000", "AcquisitionTime": "010000", "RadiopharmaceuticalInformationSequence":
         injection(RadiopharmaceuticalStartTime="231000")}, 2.0),
    "before midnight, by its date": (
        {"SeriesDate": "20240102", "AcquisitionDate": "20240102", "SeriesTime": "010000", "AcquisitionTime": "010000",
         "RadiopharmaceuticalInformationSequence": injection(RadiopharmaceuticalStartDateTime="20240101231000",
         RadiopharmaceuticalStartTime="231000")}, 2.0),
    "a date that an anonymizer left behind": (
        {"RadiopharmaceuticalInformationSequence":
         injection(RadiopharmaceuticalStartDateTime="20190607100000")}, 2.0),
    "without any date": ({"SeriesDate": None, "AcquisitionDate": None}, 2.0),
    "a nuclide of days, by its date": (
        {"SeriesDate": "20240104", "AcquisitionDate": "20240104", "RadiopharmaceuticalInformationSequence": injection(
         RadiopharmaceuticalStartDateTime="20240101115000", RadiopharmaceuticalStartTime=None,
         RadionuclideHalfLife=3 * 86400)}, 2.0),
    "GML": ({"Units": "GML", "PatientWeight": None}, 5000.0),
    "GML of body weight": ({"Units": "GML", "SUVType": "BW"}, 5000.0),
    "corrections are not listed": ({"CorrectedImage": None}, 2.0),
    "old spelling of dates and times": ({"SeriesDate": "2024.01.01", "SeriesTime": "11:50:00"}, 2.0),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_uptake_values(tmp_path, case):
    changes, value = CASES[case]
    pet(tmp_path, **changes)
    require(tmp_path, value)


def test_a_slope_for_each_slice(tmp_path):
    pet(tmp_path, per_slice=lambda index: {"RescaleSlope": 5 * (index + 1)})
    image = read_series(tmp_path)
    np.testing.assert_allclose(image.pixels[:, 0, 0], [2, 4, 6], rtol=2e-7)
    np.testing.assert_array_equal(np.stack(list(SeriesStream(tmp_path).slices())), image.pixels)


def test_bed_positions_are_corrected_to_one_start(tmp_path):
    pet(tmp_path, per_slice=lambda index: {"AcquisitionTime": f"12{index:02d}00"})
    require(tmp_path, 2.0)


def test_a_series_that_was_written_later_starts_at_its_first_image(tmp_path):
    pet(tmp_path, SeriesTime="170000", per_slice=lambda index: {"AcquisitionTime": f"1{1 + index}5000"})
    require(tmp_path, 2.0)


def test_a_frame_leads_back_to_the_start(tmp_path):
    """The second bed began 10 min later; FrameReferenceTime is where its activity is the mean of its 3 min."""
    duration, decay = 180.0, np.log(2) / HALF_LIFE
    mean = np.log(decay * duration / (1 - np.exp(-decay * duration))) / decay  # 89.1 s
    pet(
        tmp_path, SeriesTime="170000", AcquisitionTime="120000", ActualFrameDuration=180000,
        FrameReferenceTime=f"{1000 * (600 + mean):.6f}",
    )  # fmt: skip
    require(tmp_path, 2.0)


def test_the_start_of_a_scan_of_ge(tmp_path):
    for file in pet(tmp_path, SeriesTime="170000", AcquisitionTime="120000"):
        add_private(file, 0x0009, "GEMS_PETD_01", 0x0D, "DT", "20240101115000.00")
    require(tmp_path, 2.0)


def test_an_injection_that_a_dynamic_scan_watches(tmp_path):
    """Injected one half-life after the scan began: at its beginning the dose would have been twice as large."""
    pet(tmp_path, SeriesTime="081000", per_slice=lambda index: {"AcquisitionTime": f"{8 + index:02d}1000"})
    require(tmp_path, 0.5)


def add_private(file: Path, group: int, creator: str, element: int, vr: str, value: object, **options: object) -> None:
    dataset = dcmread(file)
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)
    save(dataset, file, **options)


def test_counts_of_philips(tmp_path):
    for file in pet(tmp_path / "suv", Units="CNTS", PatientWeight=None):
        add_private(file, GROUP, CREATOR, 0x00, "DS", "0.0004")
    require(tmp_path / "suv", 2.0)
    for file in pet(tmp_path / "activity", Units="CNTS", RescaleSlope=1):
        add_private(file, GROUP, CREATOR, 0x00, "DS", "0")
        add_private(file, GROUP, CREATOR, 0x09, "DS", "5.0")
    require(tmp_path / "activity", 2.0)


def test_counts_of_philips_in_implicit_files(tmp_path):
    """Private elements are of an unknown type there."""
    for file in pet(tmp_path, Units="CNTS"):
        add_private(file, GROUP, CREATOR, 0x00, "UN", b"4.0e-04 ", syntax=ImplicitVRLittleEndian)
    require(tmp_path, 2.0)


@pytest.mark.parametrize("corrected", ["20240101115000", "20240101125000+0200"])
def test_an_enhanced_object(tmp_path, corrected):
    """Its dose is in MBq, and it says to which time it was corrected (PS3.3 C.8.22)."""
    rescale = item(RescaleSlope=5, RescaleIntercept=0, RescaleType="US")
    unit = item(CodeValue="Bq/ml", CodingSchemeDesignator="UCUM", CodeMeaning="Bq/ml")
    mapping = item(RealWorldValueSlope=5.0, RealWorldValueIntercept=0.0, MeasurementUnitsCodeSequence=unit)
    write_enhanced(
        tmp_path / "pet.dcm", STORED, np.arange(3)[:, None] * (0, 0, 1),
        shared={"PixelValueTransformationSequence": rescale, "RealWorldValueMappingSequence": mapping},
        Modality="PT", PatientWeight=70, AttenuationCorrected="YES", DecayCorrected="YES",
        DecayCorrectionDateTime=corrected, RadiopharmaceuticalInformationSequence=injection(
            RadiopharmaceuticalStartTime=None,
            RadiopharmaceuticalStartDateTime="20240101100000" + ("+0100" if "+" in corrected else ""),
            RadionuclideTotalDose=350),
    )  # fmt: skip
    dataset = dcmread(tmp_path / "pet.dcm")
    dataset.SOPClassUID = EnhancedPETImageStorage
    save(dataset, tmp_path / "pet.dcm")
    require(tmp_path, 2.0)


LACKING = {
    "PatientWeight": {"PatientWeight": None},
    "PatientWeight is none": {"PatientWeight": 0},
    "RadionuclideTotalDose is none in the unit": {
        "RadiopharmaceuticalInformationSequence": injection(RadionuclideTotalDose=350)
    },
    "RadionuclideTotalDose": {"RadiopharmaceuticalInformationSequence": injection(RadionuclideTotalDose=None)},
    "RadionuclideHalfLife": {"RadiopharmaceuticalInformationSequence": injection(RadionuclideHalfLife=None)},
    "RadiopharmaceuticalStartTime": {
        "RadiopharmaceuticalInformationSequence": injection(RadiopharmaceuticalStartTime=None)
    },
    "no injection": {"RadiopharmaceuticalInformationSequence": None},
    "several injections": {"RadiopharmaceuticalInformationSequence": [*injection(), *injection()]},
    "Decay Correction is NONE": {"DecayCorrection": "NONE"},
    "Decay Correction is absent": {"DecayCorrection": None},
    "not corrected for attenuation": {"CorrectedImage": ["DECY", "SCAT"]},
    "half-lives apart": {"RadiopharmaceuticalInformationSequence": injection(RadiopharmaceuticalStartTime="120000")},
    "on which day": {"RadiopharmaceuticalInformationSequence": injection(RadionuclideHalfLife=3 * 86400)},
    "two times of the injection": {
        "RadiopharmaceuticalInformationSequence": injection(RadiopharmaceuticalStartDateTime="20240101110000")
    },
    "no SeriesTime": {"SeriesTime": None, "AcquisitionTime": None},
}


@pytest.mark.parametrize("reason", LACKING)
def test_without_what_is_needed_the_stored_unit_is_named(tmp_path, caplog, reason):
    pet(tmp_path, **LACKING[reason])
    require(tmp_path, 5000.0, unit="BQML")
    assert reason in caplog.text and "values in BQML" in caplog.text
    array, meta = MedicalImageReader().get_data([tmp_path])
    assert meta["units"] == "BQML" and array.max() == 5000
    assert not {"70", "350"} & set(caplog.text.split()), "a message quotes what is the patient's"


@pytest.mark.parametrize(
    ("changes", "unit"),
    [
        ({"Units": "CNTS"}, "CNTS"),
        ({"Units": "GML", "SUVType": "LBM"}, "GML (LBM)"),
        ({"Units": "CM2ML"}, "CM2ML"),
        ({"Units": "PROPCPS"}, "PROPCPS"),
        ({"Units": None}, "an unknown unit"),
    ],
)
def test_other_units_keep_their_names(tmp_path, caplog, changes, unit):
    pet(tmp_path, **changes)
    require(tmp_path, 5000.0, unit=unit)
    assert f"values in {unit}" in caplog.text


def test_slices_in_several_units(tmp_path):
    pet(tmp_path, per_slice=lambda index: {"Units": "CNTS" if index else "BQML"})
    require(tmp_path, 5000.0, unit="BQML and CNTS")


def test_stored_values_on_request(tmp_path, caplog):
    pet(tmp_path)
    image, stream = read_series(tmp_path, pet_units="stored"), SeriesStream(tmp_path, pet_units="stored")
    assert (image.units, stream.units) == ("BQML", "BQML")
    assert (image.pixels == 5000).all() and all((part == 5000).all() for part in stream.slices())
    assert not caplog.text


def test_other_modalities_know_nothing_of_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    pet(tmp_path / "mr", Modality="MR")
    pet(tmp_path / "ct", Modality="CT")
    assert [read_series(tmp_path / name).units for name in ("mr", "ct")] == ["", "HU"]
    assert (read_series(tmp_path / "mr").pixels == 5000).all()
    assert "uptake" not in caplog.text


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_of_the_header_show_the_same(tmp_path, function):
    pet(tmp_path, WindowCenter=4000, WindowWidth=9000, VOILUTFunction=function)
    uptake, stored = read_series(tmp_path), read_series(tmp_path, pet_units="stored")
    assert stored.voi[0] == (VoiWindow(4000, 9000, function),)
    np.testing.assert_allclose(
        apply_voi_lut(uptake.pixels, uptake.voi[0][0]), apply_voi_lut(stored.pixels, stored.voi[0][0]), atol=1e-6
    )
    assert list(SeriesStream(tmp_path).views()) == list(uptake.voi)


def test_values_differ_by_the_slope_times_the_factor(tmp_path):
    """So pictures of 16 bits keep every value, and the values are rounded once."""
    stored = np.random.default_rng(1).integers(0, 65536, (3, 8, 10)).astype(np.uint16)
    slopes = [0.000123, 0.5, 3.7]
    pet(tmp_path, stored=stored, per_slice=lambda index: {"RescaleSlope": slopes[index]})
    image = read_series(tmp_path)
    assert image.factors == pytest.approx([4e-4] * 3, rel=1e-12)
    steps = np.multiply(slopes, image.factors)
    np.testing.assert_array_equal(image.pixels, (stored * steps[:, None, None]).astype(np.float32))
    array, meta = from_dicom(image)
    pictures = lossless_pictures(MetaTensor(array[None], meta=meta), steps)
    restored = np.stack([restore_values(picture.pixels, picture.mapping) for picture in pictures])
    np.testing.assert_allclose(restored, image.pixels, rtol=1e-6)


DAMAGED = {
    "PatientWeight": (b"70.5", b"7 kg"),
    "RadionuclideTotalDose": (b"350000000.0", b"350000000.x"),
    "AcquisitionTime": (b"115001", b"11h501"),
    "ActualFrameDuration": (b"1800", b"3min"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_value_costs_no_image(tmp_path, name, caplog):
    """What only uptake values need is no reason to skip a file: it was none before they were known."""
    before, after = DAMAGED[name]
    for file in pet(tmp_path, PatientWeight="70.5", AcquisitionTime="115001", ActualFrameDuration="1800"):
        content = file.read_bytes()
        assert content.count(before) >= 1
        file.write_bytes(content.replace(before, after))
    image = read_series(tmp_path)
    assert image.pixels.shape == STORED.shape
    needed = name in ("PatientWeight", "RadionuclideTotalDose")
    assert image.units == ("BQML" if needed else "SUVbw")
    assert "cannot be read" not in caplog.text
    assert (read_series(tmp_path, pet_units="stored").pixels == 5000).all()

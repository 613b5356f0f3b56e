# SPDX-License-Identifier: Apache-2.0
"""Write a phantom case as a real CT series: CT Image Storage (PS3.3 A.3) or Enhanced CT (PS3.3 A.38)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)

from bundle.pyraseg_tools.datasets.phantom.cases import PhantomCase

DATE, TIME = "20240101", "120000"
PADDING = -2000  # stored value outside the reconstruction circle
WINDOWS = ([40, 60, -500], [400, 150, 1500], ["SOFT TISSUE", "LIVER", "LUNG"])  # centers, widths, names


def write_series(folder: Path, case: PhantomCase, *, seed: int, number: int) -> list[Dataset]:
    """Write the case's images into `folder` and return their datasets in slice order, for a segmentation to refer to.

    Every UID follows from `seed` and the patient's `number`, every date is fixed, and file names are shuffled.
    """
    folder.mkdir(parents=True)
    identity = [str(seed), str(number)]
    if "multiframe" in case.plan.traits:
        datasets: list[Dataset] = [_enhanced(case, identity, number)]
    else:
        datasets = [_slice(case, identity, number, k) for k in range(len(case.hu))]
    extra = [_scout(case, identity, number)] if "scout" in case.plan.traits else []
    names = np.random.default_rng([seed, number, 1]).permutation(len(datasets) + len(extra))
    for name, dataset in zip(names, datasets + extra, strict=True):
        if "jpeg2000" in case.plan.traits:
            dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        dataset.save_as(folder / f"IM{name:04d}.dcm", enforce_file_format=True)
    return datasets


def _uid(identity: list[str], *parts: object) -> UID:
    return generate_uid(entropy_srcs=[*identity, *map(str, parts)])


def _header(case: PhantomCase, identity: list[str], number: int, instance: str, sop_class: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = _uid(identity, "instance", instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = generate_uid(entropy_srcs=["pyraseg"])
    meta.ImplementationVersionName = "PYRASEG"
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = DATE
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = TIME
    ds.AcquisitionDateTime = DATE + TIME
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "Pyraseg", "Phantom"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.PatientName, ds.PatientID = f"Phantom^{number:02d}", f"phantom-{number:02d}"
    ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyDescription, ds.SeriesDescription = "Synthetic abdomen", f"Abdomen {case.phase}"
    ds.BodyPartExamined, ds.PatientPosition = "ABDOMEN", "HFS"
    ds.KVP = 120
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(identity, "study"), _uid(identity, "series")
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(identity, "frame of reference"), ""
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber = str(number), 1, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    return ds


def _store(ds: Dataset, hu: np.ndarray, slope: float, intercept: float, outside: np.ndarray | None) -> None:
    stored = np.rint((hu - intercept) / slope)
    if outside is not None:
        stored[..., outside] = PADDING
        ds.PixelPaddingValue = PADDING
    ds.Rows, ds.Columns = hu.shape[-2:]
    ds.PixelData = stored.astype("<i2").tobytes()
    ds["PixelData"].VR = "OW"


def _slice(case: PhantomCase, identity: list[str], number: int, k: int) -> FileDataset:
    ds = _header(case, identity, number, str(k), CTImageStorage)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber = k + 1
    ds.ImagePositionPatient = _decimals(case.positions[k])
    ds.ImageOrientationPatient = _decimals([*case.row_cosine, *case.column_cosine])
    ds.PixelSpacing = _decimals(case.pixel_spacing)
    ds.SliceThickness = _decimals([np.linalg.norm(case.slice_step)])[0]
    if "tilted" in case.plan.traits:
        ds.GantryDetectorTilt = f"{np.degrees(np.arcsin(case.column_cosine[2])):.4f}"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    if "windows" in case.plan.traits:
        ds.WindowCenter, ds.WindowWidth, ds.WindowCenterWidthExplanation = WINDOWS
    slope, intercept = (1.0, -1024.0)
    if "rescale" in case.plan.traits:
        slope, intercept = (0.5, 0.75, 1.0, 1.25)[k % 4], -1024.0 + 16 * (k % 5)
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = f"{slope:g}", f"{intercept:g}", "HU"
    _store(ds, case.hu[k], slope, intercept, case.outside)
    return ds


def _scout(case: PhantomCase, identity: list[str], number: int) -> FileDataset:
    """Make a coronal localizer by averaging along y."""
    ds = _header(case, identity, number, "scout", CTImageStorage)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.InstanceNumber = 0
    ds.ImagePositionPatient = _decimals(case.positions[-1])
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    ds.PixelSpacing = _decimals([np.linalg.norm(case.slice_step), case.pixel_spacing[1]])
    ds.SliceThickness = ""
    ds.WindowCenter, ds.WindowWidth = -300, 900
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "-1024", "HU"
    _store(ds, case.hu.mean(axis=1)[::-1], 1, -1024, None)
    return ds


def _enhanced(case: PhantomCase, identity: list[str], number: int) -> FileDataset:
    """Make one multi-frame object, with geometry and rescale in its functional groups (PS3.3 C.7.6.16)."""
    ds = _header(case, identity, number, "enhanced", EnhancedCTImageStorage)
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]  # ORIGINAL would ask for a dozen acquisition macros
    ds.InstanceNumber, ds.NumberOfFrames = 1, len(case.hu)
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.BurnedInAnnotation, ds.LossyImageCompression, ds.PresentationLUTShape = "NO", "00", "IDENTITY"
    ds.ContentQualification, ds.AcquisitionContextSequence = "RESEARCH", []
    del ds.KVP, ds.AcquisitionDate, ds.AcquisitionTime  # no part of this IOD
    organization = _uid(identity, "dimensions")
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    ds.DimensionIndexSequence = [
        _item(DimensionOrganizationUID=organization, DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111)
        for pointer in (0x00209056, 0x00209057)  # Stack ID, In-Stack Position Number
    ]
    thickness = np.linalg.norm(case.slice_step)
    frame_type = _item(
        FrameType=ds.ImageType,
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    abdomen = _item(CodeValue="818981001", CodingSchemeDesignator="SCT", CodeMeaning="Abdomen")
    ds.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[
                _item(SliceThickness=_decimals([thickness])[0], PixelSpacing=_decimals(case.pixel_spacing))
            ],
            PlaneOrientationSequence=[
                _item(ImageOrientationPatient=_decimals([*case.row_cosine, *case.column_cosine]))
            ],
            FrameVOILUTSequence=[_item(WindowCenter=40, WindowWidth=400)],
            CTImageFrameTypeSequence=[frame_type],
            IrradiationEventIdentificationSequence=[_item(IrradiationEventUID=_uid(identity, "irradiation"))],
            FrameAnatomySequence=[_item(FrameLaterality="U", AnatomicRegionSequence=[abdomen])],
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])],
            PlanePositionSequence=[_item(ImagePositionPatient=_decimals(position))],
            PixelValueTransformationSequence=[_item(RescaleSlope="1", RescaleIntercept="-1024", RescaleType="HU")],
        )
        for k, position in enumerate(case.positions)
    ]
    _store(ds, case.hu, 1, -1024, case.outside)
    return ds


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return item


def _decimals(values: Iterable[Any]) -> list[str]:
    """Return Decimal Strings of at most 16 characters (PS3.5 6.2)."""
    return [f"{float(value):.10g}"[:16] for value in values]

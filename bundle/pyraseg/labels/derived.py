# SPDX-License-Identifier: Apache-2.0
"""What every object that is derived from images says of its patient, its study and itself."""

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import PATIENT_AND_STUDY, missing_attributes, sound_sources


def referable(source_images: Sequence[Dataset], path: str | os.PathLike) -> list[Dataset]:
    """Return sound headers of images, which have what an object refers to them by.

    Args:
        source_images: their headers.
        path: of the object, for the message.

    Raises:
        PyrasegError: they lack UIDs.
    """
    missing = missing_attributes(source_images)
    if missing:
        raise PyrasegError(f"Cannot write {path}: the source images have no {', '.join(missing)}.")
    return sound_sources(source_images)


def derived_object(source: Dataset, sop_class: UID, *, software_versions: str) -> FileDataset:
    """Return a new object, in a new series, about the patient and the study of an image.

    Args:
        source: a sound header, see `dicom.sound_sources`.
        sop_class: of the object.
        software_versions: of what made it.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in ("SpecificCharacterSet", *PATIENT_AND_STUDY):
        if keyword in source:
            dataset[keyword] = source[keyword]
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    now = datetime.now()
    dataset.InstanceCreationDate = dataset.SeriesDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.SeriesTime = now.strftime("%H%M%S")
    dataset.Manufacturer = dataset.ManufacturerModelName = "Pyraseg"
    dataset.SoftwareVersions = software_versions
    dataset.SeriesInstanceUID, dataset.InstanceNumber = generate_uid(), 1
    return dataset


def item(**attributes: Any) -> Dataset:
    """Return an item of a sequence with some attributes."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def decimal_string(number: float) -> str:
    """Return a number in the 16 characters of a decimal string, as exact as they allow."""
    return format_number_as_ds(float(number) + 0.0)  # which has no sign

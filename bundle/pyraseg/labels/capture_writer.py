# SPDX-License-Identifier: Apache-2.0
"""Write pictures of slices as a Multi-frame True Color Secondary Capture Image (PS3.3 A.8.5).

It is one object a series, and the only kind of secondary capture whose frames may state where they lie in the patient
(Table A.8-5b).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom.uid
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from bundle.pyraseg.core import replacing
from bundle.pyraseg.dicom import (
    Plane,
    reference_to,
    series_number,
    slice_planes,
    state_character_set,
)
from bundle.pyraseg.labels.derived import decimal_string, derived_object, item, referable

#: What the pixels of these show is reconstructed: nothing is written into them, unless a header says so.
RECONSTRUCTED = (
    pydicom.uid.CTImageStorage, pydicom.uid.EnhancedCTImageStorage, pydicom.uid.LegacyConvertedEnhancedCTImageStorage,
    pydicom.uid.MRImageStorage, pydicom.uid.EnhancedMRImageStorage, pydicom.uid.LegacyConvertedEnhancedMRImageStorage,
    pydicom.uid.PositronEmissionTomographyImageStorage, pydicom.uid.EnhancedPETImageStorage,
    pydicom.uid.LegacyConvertedEnhancedPETImageStorage, pydicom.uid.NuclearMedicineImageStorage,
)  # fmt: skip
#: What is told of the loss of the images, which the pictures share.
LOSS = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
SEGMENTED = Code("113076", "DCM", "Segmentation")  # CID 7203, how it was derived
SOURCE = Code("121322", "DCM", "Source image for image processing operation")  # CID 7202


def write_capture(
    path: str | os.PathLike,
    pictures: np.ndarray,
    source_images: Sequence[Dataset],
    *,
    frame_numbers: Sequence[int],
    image_size: tuple[int, int],
    algorithm: tuple[str, str],
) -> None:
    """Write pictures of slices, each with a reference to its image, and with its place where that has one.

    The upper left part of a picture is the image, resized; what is drawn beside lies beyond its edges. A picture has
    the position, orientation and pixel spacing of its slice accordingly.

    `BurnedInAnnotation` tells whether the pixels identify the patient (PS3.3 C.8.6.3). The caller draws nothing that
    does. So it is that of the images: YES where one of them says so, or says nothing and is no slice of a scanner.

    Args:
        path: file to write; it appears whole or not at all.
        pictures: RGB bytes, (N, rows, columns, 3).
        source_images: header of the image of each picture.
        frame_numbers: of each picture's slice in its image, from 1.
        image_size: width and height of the image in the pictures.
        algorithm: name and version of the program that segmented.

    Raises:
        PyrasegError: the sources lack UIDs.
    """
    path = Path(path)
    sources = referable(source_images, path)
    first = sources[0]
    dataset = derived_object(
        first, pydicom.uid.MultiFrameTrueColorSecondaryCaptureImageStorage, software_versions=algorithm[1]
    )
    dataset.Modality, dataset.ConversionType = "OT", "WSD"  # other, made by a workstation
    dataset.SeriesNumber = series_number(first, 300)
    dataset.SeriesDescription = "Segmentation pictures, not for diagnosis"
    dataset.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]  # by which programs, this one too, leave it out
    dataset.PatientOrientation = dataset.Laterality = ""  # type 2C: unknown
    dataset.ContentDate, dataset.ContentTime = dataset.InstanceCreationDate, dataset.InstanceCreationTime
    dataset.ImageComments = "Not for diagnosis"
    dataset.DerivationDescription = f"Outlines of an automatic segmentation ({', '.join(algorithm)}) on windowed slices"
    dataset.BurnedInAnnotation = "YES" if any(map(_may_identify, sources)) else "NO"
    for keyword in LOSS:
        if keyword in first:
            dataset[keyword] = first[keyword]
    _state_pixels(dataset, pictures)
    _refer(dataset, sources, frame_numbers)
    planes = slice_planes(sources, frame_numbers)
    if planes is not None:
        dataset.FrameOfReferenceUID = first.FrameOfReferenceUID
        dataset.PositionReferenceIndicator = str(first.get("PositionReferenceIndicator") or "")
        for group, plane in zip(dataset.PerFrameFunctionalGroupsSequence, planes, strict=True):
            group.update(_place(plane, (first.Columns, first.Rows), image_size))
    state_character_set(dataset)
    with replacing(path) as partial:
        dataset.save_as(partial, enforce_file_format=True)


def _may_identify(source: Dataset) -> bool:
    """Return whether an image may have an identity in its pixels."""
    said = source.get("BurnedInAnnotation")
    secondary = "SECONDARY" in (source.get("ImageType") or [])
    return said == "YES" or (said is None and (secondary or source.SOPClassUID not in RECONSTRUCTED))


def _state_pixels(dataset: Dataset, pictures: np.ndarray) -> None:
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = pictures.shape
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    if len(pictures) > 1:  # a lone frame has no increment, PS3.3 C.8.6.3
        dataset.FrameIncrementPointer = Tag("PerFrameFunctionalGroupsSequence")  # PS3.3 C.7.6.6.1.2
    pixels = pictures.tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OB"


def _refer(dataset: Dataset, sources: Sequence[Dataset], frame_numbers: Sequence[int]) -> None:
    """Refer to the images, as a whole and for each frame."""
    series = item(SeriesInstanceUID=sources[0].SeriesInstanceUID)
    series.ReferencedInstanceSequence = list({id(source): reference_to(source) for source in sources}.values())
    dataset.ReferencedSeriesSequence = [series]
    dataset.SourceImageSequence = [_with_purpose(reference_to(*pair)) for pair in _pairs(sources, frame_numbers)]
    dataset.SharedFunctionalGroupsSequence = [Dataset()]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            DerivationImageSequence=[
                item(
                    DerivationCodeSequence=[_coded(SEGMENTED)],
                    SourceImageSequence=[_with_purpose(reference_to(*pair))],
                )
            ]
        )
        for pair in _pairs(sources, frame_numbers)
    ]


def _pairs(sources: Sequence[Dataset], frame_numbers: Sequence[int]) -> list[tuple[Dataset, int]]:
    return list(zip(sources, frame_numbers, strict=True))


def _with_purpose(reference: Dataset) -> Dataset:
    reference.PurposeOfReferenceCodeSequence = [_coded(SOURCE)]
    return reference


def _coded(code: Code) -> Dataset:
    return item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)


def _place(plane: Plane, source_size: tuple[int, int], image_size: tuple[int, int]) -> Dataset:
    """Return the functional groups of a picture's place.

    A resize keeps the edges of an image, so the center of the first pixel moves by half the difference of the pixels.

    Args:
        plane: of the slice.
        source_size, image_size: columns and rows of the slice, and of the image in the picture.
    """
    row_cosine, column_cosine = np.reshape(plane.orientation, (2, 3))
    between_rows, between_columns = plane.pixel_spacing
    across = between_columns * source_size[0] / image_size[0]
    down = between_rows * source_size[1] / image_size[1]
    position = np.asarray(plane.position) + (
        (across - between_columns) / 2 * row_cosine + (down - between_rows) / 2 * column_cosine
    )
    measures = item(PixelSpacing=[decimal_string(down), decimal_string(across)])
    if plane.slice_thickness:
        measures.SliceThickness = decimal_string(plane.slice_thickness)
    orientation = [decimal_string(value) for value in plane.orientation]
    return item(
        PixelMeasuresSequence=[measures],
        PlanePositionSequence=[item(ImagePositionPatient=[decimal_string(value) for value in position])],
        PlaneOrientationSequence=[item(ImageOrientationPatient=orientation)],
    )

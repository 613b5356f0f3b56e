# SPDX-License-Identifier: Apache-2.0
"""Write a label mask as a DICOM Segmentation (PS3.3 A.51)."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, generate_uid

from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.dicom import (
    EQUIPMENT,
    MAY_BE_EMPTY,
    PATIENT_AND_STUDY,
    SHARED_UIDS,
    Plane,
    file_of,
    missing_attributes,
    numbered,
    reference_to,
    series_number,
    slice_planes,
    sound_sources,
    stack_geometry,
    state_character_set,
)
from bundle.pyraseg.labels.derived import decimal_string
from bundle.pyraseg.labels.seg_types import ONE, each_region, require_seg_type, stored_fractions

LOGGER = logging.getLogger(__name__)

#: What reports about a segmentation refer to.
IDENTITY = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("SegmentSequence", "ReferencedSeriesSequence"),
)
UNKNOWN_THICKNESS = 1.0  # mm; a segmentation has to state one
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LESION = Code("52988006", "SCT", "Lesion")
ORGANS = {
    "liver": Code("10200004", "SCT", "Liver"),
    "spleen": Code("78961009", "SCT", "Spleen"),
    "kidney": Code("64033007", "SCT", "Kidney"),
    "lung": Code("39607008", "SCT", "Lung"),
    "hippocampus": Code("5366008", "SCT", "Hippocampus"),
    "skin": Code("39937001", "SCT", "Skin"),
}


@dataclass(frozen=True)
class SegmentClass:
    """What a label value stands for, as coded concepts (PS3.3 C.8.20.4)."""

    label: str
    category: Code
    type: Code
    region: Code | None = None
    modifier: Code | None = None

    @classmethod
    def organ(cls, name: str) -> "SegmentClass":
        """Describe an organ of the table `ORGANS`."""
        return cls(name, ANATOMICAL_STRUCTURE, _organ(name))

    @classmethod
    def lesion(cls, region: str, *, label: str = "lesion") -> "SegmentClass":
        """Describe a lesion of unknown nature in an organ of the table `ORGANS`."""
        return cls(label, ABNORMAL_STRUCTURE, LESION, _organ(region))

    @classmethod
    def from_codes(cls, label: str, codes: Mapping[str, Sequence[str]]) -> "SegmentClass":
        """Describe a class by a row of a config's table.

        Args:
            label: name of the class.
            codes: `type` and, if wanted, `category` (an anatomical structure unless it is given), `region` and
                `modifier`, each as [value, scheme, meaning].

        Raises:
            PyrasegError: the row has no type, another entry, or one that is not three texts.
        """
        known = ("category", "type", "region", "modifier")
        if "type" not in codes or not set(codes) <= set(known):
            raise PyrasegError(
                f"The terminology of {label!r} has {', '.join(codes) or 'nothing'}; it needs a type, and may have "
                f"{', '.join(known)}."
            )
        for name, code in codes.items():
            if isinstance(code, str) or len(code) != 3 or not all(isinstance(part, str) and part for part in code):
                raise PyrasegError(
                    f"The {name} of {label!r} in the terminology is {code!r}. Give [value, scheme, meaning], such as "
                    '["10200004", "SCT", "Liver"].'
                )
        return cls(label, **{"category": ANATOMICAL_STRUCTURE, **{name: Code(*code) for name, code in codes.items()}})


def segment_classes(class_names: Sequence[str], terminology: Mapping[str, Mapping]) -> list[SegmentClass]:
    """Return the segments of a model's classes; the background, which comes first, is none.

    Args:
        class_names: they become the segments' labels.
        terminology: for each class but the background its codes, as for `SegmentClass.from_codes`.

    Raises:
        PyrasegError: a class has no codes, or faulty ones.
    """
    uncoded = [name for name in class_names[1:] if name not in terminology]
    if uncoded:
        raise PyrasegError(
            f"A DICOM SEG needs a code for each class, and the terminology has none for {', '.join(uncoded)}. Give "
            f'them, such as "terminology": {{"{uncoded[0]}": {{"type": ["10200004", "SCT", "Liver"]}}}}, in a '
            "config of your own after the inference config (docs/inference.md), and export or package with it."
        )
    return [SegmentClass.from_codes(name, terminology[name]) for name in class_names[1:]]


def _organ(name: str) -> Code:
    if name not in ORGANS:
        raise PyrasegError(f"There is no SNOMED code for {name!r} in the table; it has {', '.join(ORGANS)}.")
    return ORGANS[name]


def write_segmentation(
    path: str | os.PathLike,
    mask: np.ndarray,
    source_images: Sequence[Dataset],
    classes: Sequence[SegmentClass],
    *,
    frame_numbers: Sequence[int] = (),
    algorithm: tuple[str, str] | None = None,
    algorithm_type: str = "AUTOMATIC",
    series_description: str = "Segmentation",
    deterministic_seed: int | str | None = None,
    overlapping: bool = False,
    seg_type: str = "BINARY",
) -> Dataset:
    """Write a segmentation whose segment number is the label value.

    What the sources say against the standard does not come into it, see `sound_sources`. Slices without a place in a
    patient are segmented by reference to their images alone, in their order. As its slice thickness, each frame states
    how much of the stack it stands for (`Geometry.slice_widths`), so that voxels times their size are the volume.
    Each segment has a Tracking UID, by which reports name it (PS3.3 C.8.20.4).

    Args:
        path: file to write; it appears whole or not at all.
        mask: (N, rows, columns) uint8, 0 for background; slice k belongs to `source_images[k]`. Of a FRACTIONAL
            segmentation the probability of each segment, (N, rows, columns, segments) float from 0 to 1, stored in
            steps of 1/255 (Segmentation Fractional Type PROBABILITY, PS3.3 C.8.20.2.3).
        source_images: header of the image of each slice; a multi-frame image stands once for each of its slices, or
            alone where it has them all.
        classes: what the values 1, 2, ... stand for. Each is described, also where the mask does not hold it
            (segment numbers may have no gaps, PS3.3 C.8.20.4). A mask of zeros writes explicit empty frames. A
            LABELMAP describes the background as segment 0, too.
        frame_numbers: for each slice its frame in its image, from 1; without them the frames of an image come one
            after the other.
        algorithm: name and version of the program that segmented; without it the segments count as manual.
        algorithm_type: "AUTOMATIC", or "SEMIAUTOMATIC" where a person has had a hand in it (PS3.3 C.8.20.2).
        series_description: goes into the header.
        deterministic_seed: derive UIDs from it and the source, and take dates from the source, so that the same
            input gives the same bytes.
        overlapping: the mask holds label values of regions, see `core.Structures`: segment 1 is where the first bit is
            set, segment 2 where the second one is, and a voxel may be in several segments.
        seg_type: "BINARY", which every program reads; "LABELMAP" (Label Map Segmentation Storage), a byte a pixel
            however many classes there are; or "FRACTIONAL".

    Returns:
        What identifies the segmentation and tells what it is about, `IDENTITY`.

    Raises:
        PyrasegError: the mask does not fit the sources or the type, holds an undeclared value, or the sources lack
            UIDs.

    >>> import tempfile
    >>> import pydicom
    >>> from pydicom.data import get_testdata_file
    >>> source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    >>> mask = np.zeros((1, 128, 128), np.uint8)
    >>> mask[0, 40:60, 40:60] = 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_segmentation(f"{folder}/seg.dcm", mask, [source], [SegmentClass.organ("liver")])
    ...     int(pydicom.dcmread(f"{folder}/seg.dcm").pixel_array.sum())
    400
    """
    path = Path(path)
    if len(source_images) == 1:
        source_images = [source_images[0]] * len(mask)
    require_seg_type(seg_type, overlapping=overlapping)
    _check_sources(path, mask, source_images, len(classes), overlapping=overlapping, seg_type=seg_type)
    sources = sound_sources(source_images)
    frame_numbers = frame_numbers or numbered(sources)
    planes = slice_planes(sources, frame_numbers)
    first = sources[0]
    entropy = None if deterministic_seed is None else [str(deterministic_seed), first.SOPInstanceUID]

    def uid(role: str) -> str:
        return generate_uid(entropy_srcs=entropy and [*entropy, role])

    stand_ins = _stand_ins(first, planes, len(mask))
    if seg_type == "FRACTIONAL":
        mask = stored_fractions(mask)
    elif overlapping:
        mask = each_region(mask, len(classes))
    segmentation = Segmentation(
        source_images=stand_ins,
        pixel_array=mask,
        segmentation_type=seg_type,
        fractional_type="PROBABILITY",
        max_fractional_value=ONE,
        segment_descriptions=[
            _describe(number, item, algorithm, algorithm_type, uid(f"segment {number}"))
            for number, item in enumerate(classes, 1)
        ],
        series_instance_uid=uid("series"),
        series_number=series_number(first, 100),
        sop_instance_uid=uid("instance"),
        instance_number=1,
        manufacturer="Pyraseg",
        manufacturer_model_name="Pyraseg",
        software_versions=algorithm[1] if algorithm else "1",
        device_serial_number="1",
        content_label="SEGMENTATION",
        series_description=series_description,
        omit_empty_frames=bool(mask.any()),
    )
    for keyword in ("SpecificCharacterSet", *PATIENT_AND_STUDY):
        if keyword in first:
            segmentation[keyword] = first[keyword]
    _refer(segmentation, stand_ins, sources, frame_numbers)
    if planes is None:
        _drop_places(segmentation, first)
    else:
        _state_widths(segmentation, stand_ins)
    if entropy:
        _fix_identity(segmentation, first, uid("dimensions"))
    state_character_set(segmentation)
    with replacing(path) as partial:
        segmentation.save_as(partial)
    written = Dataset()
    for keyword in IDENTITY:
        written[keyword] = segmentation[keyword]
    return written


def _stand_ins(first: Dataset, planes: Sequence[Plane] | None, count: int) -> list[Dataset]:
    """Return a plain CT image for each slice, in its place or, without one, in its turn.

    A segmentation may refer to any images, but highdicom takes those of some classes only, and neither several
    multi-frame files nor frames without a place. What it refers to is told afterwards (`_refer`), and so is the
    patient, of whose name highdicom warns.
    """
    placed = planes or [Plane((0, 0, -k), (1, 0, 0, 0, 1, 0), (1, 1), 1) for k in range(count)]
    stack, order = stack_geometry(placed)
    cosines = [decimal_string(value) for value in (*stack.row_cosine, *stack.column_cosine)]  # at right angles exactly
    if count == 1 and stack.slice_thickness is None:
        LOGGER.warning("%s: nothing tells the thickness of its only slice; %g mm stands for it in the segmentation",
                       file_of(first), UNKNOWN_THICKNESS)  # fmt: skip
    widths = dict(zip(order.tolist(), stack.slice_widths.tolist(), strict=True))
    result = []
    for number, plane in enumerate(placed, 1):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"2.25.{number}"
        for keyword in SHARED_UIDS:
            setattr(image, keyword, first[keyword].value)
        for keyword in MAY_BE_EMPTY:
            setattr(image, keyword, "")
        image.Rows, image.Columns, image.Modality = first.Rows, first.Columns, "CT"
        image.ImagePositionPatient = [decimal_string(value) for value in plane.position]
        image.ImageOrientationPatient = cosines
        image.PixelSpacing = [decimal_string(value) for value in plane.pixel_spacing]
        image.SliceThickness = decimal_string(widths[number - 1])
        result.append(image)
    for keyword in EQUIPMENT:
        if keyword in first:
            result[0][keyword] = first[keyword]
    return result


def _refer(
    segmentation: Dataset, stand_ins: Sequence[Dataset], sources: Sequence[Dataset], frame_numbers: Sequence[int]
) -> None:
    """Let a segmentation refer to the images of its slices, not to those that stood in for them."""
    slices = {str(image.SOPInstanceUID): k for k, image in enumerate(stand_ins)}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", []):
            for reference in derivation.SourceImageSequence:
                k = slices.get(str(reference.ReferencedSOPInstanceUID))
                if k is None:
                    continue  # the segments of a slice share theirs
                reference.update(reference_to(sources[k], frame_numbers[k]))
    images = list({id(source): reference_to(source) for source in sources}.values())
    segmentation.SourceImageSequence = images
    segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence = images


def _state_widths(segmentation: Dataset, stand_ins: Sequence[Dataset]) -> None:
    """Let each frame state the thickness of its slice where slices differ in it; highdicom states that of the first."""
    if len({image.SliceThickness for image in stand_ins}) == 1:
        return
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    places = {tuple(image.ImagePositionPatient): image.SliceThickness for image in stand_ins}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        own = Dataset()
        own.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
        own.SliceThickness = places[tuple(group.PlanePositionSequence[0].ImagePositionPatient)]
        group.PixelMeasuresSequence = [own]
    del shared.PixelMeasuresSequence


def _drop_places(segmentation: Dataset, first: Dataset) -> None:
    """Take the places that highdicom was given for slices without one out again; their order takes their part.

    Of a projection it may be known which way its rows run.
    """
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence
    pointers = [index.DimensionIndexPointer for index in segmentation.DimensionIndexSequence]
    place = pointers.index(Tag("ImagePositionPatient"))
    index = segmentation.DimensionIndexSequence[place]
    index.DimensionIndexPointer = Tag("InStackPositionNumber")
    index.FunctionalGroupPointer = Tag("FrameContentSequence")
    index.DimensionDescriptionLabel = "In-Stack Position Number"
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        content, number = group.FrameContentSequence[0], 1 - int(group.PlanePositionSequence[0].ImagePositionPatient[2])
        content.StackID, content.InStackPositionNumber = "1", number
        values = content.DimensionIndexValues
        content.DimensionIndexValues = [number if k == place else value for k, value in enumerate(values)]
        del group.PlanePositionSequence
    for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator", "DimensionOrganizationType"):
        if keyword in segmentation:
            del segmentation[keyword]
    segmentation.PatientOrientation = first.get("PatientOrientation") or ""


def _check_sources(
    path: Path, mask: np.ndarray, sources: Sequence[Dataset], classes: int, *, overlapping: bool, seg_type: str
) -> None:
    missing = missing_attributes(sources)
    if missing:
        raise PyrasegError(
            f"Cannot write {path}: the source images have no {', '.join(missing)}, and a segmentation must refer to "
            "them. Write a copy of the series with generated UIDs and use that as the source."
        )
    expected = (len(sources), sources[0].Rows, sources[0].Columns)
    if seg_type == "FRACTIONAL":
        if mask.dtype.kind != "f" or mask.shape != (*expected, classes):
            raise PyrasegError(
                f"Cannot write {path}: a FRACTIONAL segmentation needs probabilities, float {(*expected, classes)} "
                f"(slices, rows, columns, segments), and got {mask.dtype} {mask.shape}."
            )
        return
    if mask.dtype != np.uint8 or mask.shape != expected:
        raise PyrasegError(
            f"Cannot write {path}: the mask is {mask.dtype} {mask.shape}, but the source images need uint8 {expected} "
            "(slices, rows, columns). Resample the mask to the original grid first."
        )
    if mask.max(initial=0) > (2**classes - 1 if overlapping else classes):
        raise PyrasegError(f"Cannot write {path}: the mask holds the value {mask.max()}, but {classes} classes are "
                           "described. Describe every class, in the order of the values.")  # fmt: skip


def _describe(
    number: int, item: SegmentClass, algorithm: tuple[str, str] | None, algorithm_type: str, tracking_uid: str
) -> SegmentDescription:
    identification = algorithm and hd.AlgorithmIdentificationSequence(
        name=algorithm[0], version=algorithm[1], family=Code("123110", "DCM", "Artificial Intelligence")
    )
    description = SegmentDescription(
        segment_number=number,
        segment_label=item.label,
        segmented_property_category=item.category,
        segmented_property_type=item.type,
        algorithm_type=algorithm_type if algorithm else "MANUAL",
        algorithm_identification=identification,
        anatomic_regions=[item.region] if item.region else None,
        tracking_id=item.label,
        tracking_uid=tracking_uid,
    )
    if item.modifier:
        modifier = hd.sr.CodedConcept(*item.modifier[:3])
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description


def _fix_identity(segmentation: Dataset, source: Dataset, dimension_uid: str) -> None:
    """Replace what highdicom takes from the clock or from a random source."""
    date = source.get("ContentDate") or source.get("StudyDate") or "20000101"
    time = source.get("ContentTime") or source.get("StudyTime") or "000000"
    for element in list(segmentation.iterall()):
        if element.keyword == "DimensionOrganizationUID":
            element.value = dimension_uid
        elif element.keyword == "ContributionDateTime":
            element.value = f"{date}{time}"
    for part in ("InstanceCreation", "Content", "Series"):
        if f"{part}Date" in segmentation:
            setattr(segmentation, f"{part}Date", date)
            setattr(segmentation, f"{part}Time", time)

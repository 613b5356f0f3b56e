# SPDX-License-Identifier: Apache-2.0
"""Write a label mask as a DICOM Segmentation (PS3.3 A.51)."""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.dicom import (
    as_single_images,
    frame_count,
    frame_planes,
    is_unpacked,
    missing_attributes,
    values_as_they_are,
    with_frames,
    without_notices,
)

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


@without_notices()  # highdicom's quote the patient's name
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
    deterministic_seed: int | None = None,
) -> None:
    """Write a BINARY segmentation whose segment number is the label value.

    Args:
        path: file to write; it appears whole or not at all.
        mask: (N, rows, columns) uint8, 0 for background; slice k belongs to `source_images[k]`, or to a frame of the
            one multi-frame source.
        source_images: the image slices, or one multi-frame image.
        classes: what the values 1, 2, ... stand for. Each is described, also where the mask does not hold it
            (segment numbers may have no gaps, PS3.3 C.8.20.4). A mask of zeros writes explicit empty frames.
        frame_numbers: for each slice the frame of a multi-frame source that it belongs to, from 1; without them slice
            k belongs to frame k + 1, and each frame has a slice.
        algorithm: name and version of the program that segmented; without it the segments count as manual.
        algorithm_type: "AUTOMATIC", or "SEMIAUTOMATIC" where a person has had a hand in it (PS3.3 C.8.20.2).
        series_description: goes into the header.
        deterministic_seed: derive UIDs from it and the source, and take dates from the source, so that the same
            input gives the same bytes.

    Raises:
        PyrasegError: the mask does not fit the sources, holds an undeclared value, or the sources lack UIDs.

    >>> import tempfile
    >>> import pydicom
    >>> from pydicom.data import get_testdata_file
    >>> source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    >>> mask = np.zeros((1, 128, 128), np.uint8)
    >>> mask[0, 40:60, 40:60] = 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_segmentation(f"{folder}/seg.dcm", mask, [source], [SegmentClass.organ("liver")])
    ...     int(pydicom.dcmread(f"{folder}/seg.dcm").pixel_array.sum())
    400
    """
    path = Path(path)
    source_images = [_without_empty_character_set(dataset) for dataset in source_images]
    source = source_images[0]
    _check_sources(path, mask, source_images, len(classes), frame_numbers)
    has_frames = len(source_images) == 1 and "NumberOfFrames" in source
    has_frames &= frame_count(source) > 1 or frame_planes(source)[0] is not None
    is_mosaic = has_frames and is_unpacked(source)
    if is_mosaic:
        source_images = as_single_images(source, frame_numbers or range(1, len(mask) + 1))
    elif has_frames:
        frame_numbers = list(frame_numbers or range(1, len(mask) + 1))
        source = with_frames(source, frame_numbers)
        source_images = [source]
    entropy = None if deterministic_seed is None else [str(deterministic_seed), source.SOPInstanceUID]

    def uid(role: str) -> str:
        return generate_uid(entropy_srcs=entropy and [*entropy, role])

    with values_as_they_are():
        try:
            segmentation = Segmentation(
                source_images=source_images,
                pixel_array=mask,
                segmentation_type="BINARY",
                segment_descriptions=[
                    _describe(number, item, algorithm, algorithm_type) for number, item in enumerate(classes, 1)
                ],
                series_instance_uid=uid("series"),
                series_number=int(source.get("SeriesNumber") or 0) + 100,
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
        except KeyError as error:
            if error.args != (source.SOPClassUID,):
                raise
            raise PyrasegError(
                f"Cannot write {path}: the source images are of the SOP class {source.SOPClassUID.name}, which is "
                "retired or private, so the attributes that a segmentation copies from them are unknown. Convert the "
                "images."
            ) from error
        if is_mosaic:
            for series in segmentation.ReferencedSeriesSequence:  # which lists the one image once for each tile
                series.ReferencedInstanceSequence = series.ReferencedInstanceSequence[:1]
        elif has_frames:
            _name_frames(segmentation, frame_numbers)
        if "FrameOfReferenceUID" not in source:  # a projection: which way its rows run is all that may be known
            segmentation.PatientOrientation = source.get("PatientOrientation", "")
        if entropy:
            _fix_identity(segmentation, source, uid("dimensions"))
        with replacing(path) as partial:
            segmentation.save_as(partial)


def _without_empty_character_set(source: Dataset) -> Dataset:
    """Return a source that highdicom accepts: an empty Specific Character Set stands for the default one."""
    if source.get("SpecificCharacterSet", "default"):
        return source
    source = copy.deepcopy(source)  # pydicom's shallow copies share their elements
    del source.SpecificCharacterSet
    return source


def _name_frames(segmentation: Dataset, frame_numbers: Sequence[int]) -> None:
    """Let each frame refer to that of the whole source: highdicom has seen only the ones with a slice."""
    references = (
        reference
        for group in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in group.get("DerivationImageSequence", [])
        for reference in derivation.SourceImageSequence
        if "ReferencedFrameNumber" in reference  # not of a class of single frames
    )
    for reference in {id(one): one for one in references}.values():  # the segments of a frame share theirs
        reference.ReferencedFrameNumber = int(frame_numbers[reference.ReferencedFrameNumber - 1])


def _check_sources(
    path: Path, mask: np.ndarray, sources: Sequence[Dataset], classes: int, frame_numbers: Sequence[int]
) -> None:
    first = sources[0]
    missing = missing_attributes(sources, placed=False)
    if missing:
        raise PyrasegError(
            f"Cannot write {path}: the source images have no {', '.join(missing)}, and a segmentation must refer to "
            "them. Write a copy of the series with generated UIDs and use that as the source."
        )
    frames = len(frame_numbers) or frame_count(first) if len(sources) == 1 else len(sources)
    expected = (frames, first.Rows, first.Columns)
    if mask.dtype != np.uint8 or mask.shape != expected:
        raise PyrasegError(
            f"Cannot write {path}: the mask is {mask.dtype} {mask.shape}, but the source images need uint8 {expected} "
            "(slices, rows, columns). Resample the mask to the original grid first."
        )
    if mask.max(initial=0) > classes:
        raise PyrasegError(f"Cannot write {path}: the mask holds the value {mask.max()}, but {classes} classes are "
                           "described. Describe every class, in the order of the values.")  # fmt: skip


def _describe(
    number: int, item: SegmentClass, algorithm: tuple[str, str] | None, algorithm_type: str
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

# SPDX-License-Identifier: Apache-2.0
"""One reader for `LoadImaged`: DICOM and photographs through our own chains, others through MONAI's readers by name."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.utils import SpaceKeys, ensure_tuple

from bundle.pyraseg.core import (
    ITK,
    NIFTI,
    PHOTOGRAPH,
    PyrasegError,
    SequencePaths,
    as_rgb,
    fill_outside,
    read_photograph,
    require,
    tell,
)
from bundle.pyraseg.dicom import (
    LPS_TO_RAS,
    ChosenPath,
    DicomImage,
    FoundFile,
    Geometry,
    Purpose,
    as_file,
    find_sequences,
    phase_of,
    plane_of,
    read_selection,
    read_sequences,
    read_series,
    read_wanted,
)
from bundle.pyraseg.transforms.itk_formats import read_itk
from bundle.pyraseg.transforms.nifti import read_nifti
from bundle.pyraseg.transforms.sequences import geometry_of_meta, stack_sequences

logger = logging.getLogger(__name__)


class MedicalImageReader(ImageReader):
    """Read whatever an item of a data list names; the format is told by the suffix, and DICOM is what remains.

    A DICOM series (a folder or several files), file or multi-frame object becomes (W, H, D) float32 in rescaled units
    (color: (W, H, D, 3) uint8) with the slices along the image plane's normal, neither windowed nor inverted. Its
    metadata hold what later transforms need: `affine` (RAS mm), `has_geometry` and, where it has one, `slice_positions`
    (D, 3) in LPS mm and `slice_thicknesses`, `voi` (for each slice the windows of the header, as mappings), `inverted`,
    `for_processing`, `modality`, `units`, for each slice its file and its frame there, from 1 (`files`,
    `frame_numbers`), what people call the series (`series_number`, `series_description`), and what labels refer to:
    `series_uid`, `frame_of_reference_uid`, `phase` where one of several was chosen, and the slices'
    `sop_instance_uids`. The files of a series that
    `find_inputs` found keep their complete headers there, so that what is written about them opens none again; MONAI's
    `LoadImage` hands them on where its `expanduser` is false.

    A case of several `sequences` becomes (W, H, D, N), each a channel on the grid of the first, whose metadata it has:
    see `stack_sequences`. It comes as `SequencePaths`, as `load_cases` and `find_inputs` make them, or as a folder that
    holds this case alone.

    NIfTI, NRRD and MetaImage become (W, H, D), one slice or many, with `affine` in RAS mm and what `read_nifti` and
    `read_itk` found out; none of them has windows or polarity. PNG, JPEG and the like are read by `read_photograph` as
    gray (W, H) or RGB (W, H, 3), upright as viewers show them.

    What is padding, declared by DICOM or not finite and outside the field of view (see `core.require_outside`), holds
    the smallest value of the image; `padding` in the metadata says how many pixels that are, where there are any.

    Args:
        series: which series to read where a path holds several DICOM series: its number, description or UID, see
            `read_series`.
        select: which phase, echo or b-value to read where a series holds several, such as "AcquisitionNumber=2"; see
            `read_series`.
        purpose: what images the model is for that they are read for; others are refused or told of. Of a volume in
            another format than DICOM only the plane is known. It also says what unit PET is read in.
        sequences: what `read_sequences` takes; None: an image is one sequence.
        allow_missing: sequences but the first may be missing, which is told.
        rgb: make every photograph RGB, gray ones too, and gray DICOM images of 8 bits (an ultrasound) as they are to
            be displayed; without it they keep one channel or three.
        label: read a label map: take nothing for padding.

    Raises:
        PyrasegError: another argument was given.
    """

    def __init__(
        self,
        *,
        series: Any = None,
        select: str | Mapping[str, Any] | None = None,
        purpose: Purpose | None = None,
        sequences: Any = None,
        allow_missing: bool = False,
        rgb: bool = False,
        label: bool = False,
        **unknown: Any,
    ) -> None:
        if unknown:  # a TypeError would make LoadImage build the reader without any argument
            known = "series, select, purpose, sequences, allow_missing, rgb and label"
            raise PyrasegError(f"MedicalImageReader has no argument {', '.join(unknown)}; it has {known}.")
        self.series = read_wanted(series)
        self.select = read_selection(select)
        self.purpose = purpose or Purpose()
        self.sequences = read_sequences(sequences)
        self.allow_missing = allow_missing
        self.rgb = rgb
        self.label = label

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        return True

    def read(
        self, data: Sequence[PathLike] | PathLike, **kwargs: Any
    ) -> list[Path | FoundFile | ChosenPath | SequencePaths]:
        """Return the paths alone: `LoadImage` tries other readers, in silence, when `read` raises."""
        return [path if isinstance(path, SequencePaths) else as_file(path) for path in ensure_tuple(data)]

    def get_data(
        self, img: Sequence[Path | FoundFile | ChosenPath | SequencePaths]
    ) -> tuple[np.ndarray | torch.Tensor, dict[str, Any]]:
        """Return the array, of DICOM and of several sequences as a tensor, and its metadata.

        Raises:
            PyrasegError: a path that does not exist, a file that cannot be read, values that are not finite inside the
                image or anywhere in a label map, or a DICOM refusal; or sequences that are not those of the model, see
                `stack_sequences`.
        """
        if self.sequences:
            return self._stacked(self._case(img))
        if isinstance(img[0], SequencePaths):
            raise PyrasegError(
                f"The case {img[0]} has the sequences {', '.join(img[0].parts)}, and this model takes one image. Name "
                "them with --sequences, or give one of them."
            )
        return self._read([path for path in img if not isinstance(path, SequencePaths)])

    def _stacked(self, case: SequencePaths) -> tuple[torch.Tensor, dict[str, Any]]:
        parts = {name: case.parts.get(name) for name in self.sequences}
        lacking = [name for name, part in parts.items() if part is None]
        if lacking and not self.allow_missing:
            raise PyrasegError(
                f"The case {case} lacks the sequence {', '.join(lacking)}. Add it, or train with --sequence_dropout."
            )
        if lacking:
            tell(f"The case {case} lacks the sequence {', '.join(lacking)}: the model goes without it.")
        first = next(iter(parts))
        read = {name: part if part is None else self._sequence(part, name, first) for name, part in parts.items()}
        names = {name: f"The sequence {name} of {case} ({_first_path(part)})" for name, part in parts.items()}
        return stack_sequences(read, names)

    def _case(self, img: Sequence[Any]) -> SequencePaths:
        """Return what the sequences of a case are read from, those of a folder as they are found there."""
        if isinstance(img[0], SequencePaths):
            if other := [name for name in img[0].parts if name not in self.sequences]:
                raise PyrasegError(
                    f"The case {img[0]} has a sequence {other[0]}, and the model takes {', '.join(self.sequences)}."
                )
            if img[0].parts.get(next(iter(self.sequences))) is None:
                raise PyrasegError(
                    f"The case {img[0]} lacks the sequence {next(iter(self.sequences))}, whose grid the others are "
                    "brought onto. Add it, or leave the case out."
                )
            return img[0]
        if len(img) > 1 or not Path(img[0]).is_dir():
            raise PyrasegError(
                f"{img[0]} is one image, and the model takes the sequences {', '.join(self.sequences)} of a case. Give "
                "the folder that holds them."
            )
        found = find_sequences(Path(img[0]), self.sequences, allow_missing=self.allow_missing)
        if found.fault:
            raise PyrasegError(f"{found.place} {found.fault}")
        return SequencePaths(
            {name: one if one is None or isinstance(one, Path) else one.found for name, one in found.parts.items()}
        )

    def _sequence(self, part: Any, name: str, first: str) -> tuple[Any, dict[str, Any]]:
        """Return what is read of one sequence; the plane of the first alone has to be that of the model."""
        paths = [as_file(path) for path in ([part] if isinstance(part, str | PathLike) else part)]
        return self._read(paths, aside=() if name == first else ("plane",))

    def _read(
        self, img: Sequence[Path | FoundFile | ChosenPath], *, aside: Sequence[str] = ()
    ) -> tuple[np.ndarray | torch.Tensor, dict[str, Any]]:
        """Return what `get_data` does of one image; in what is `aside` it may be any."""
        path = Path(img[0])
        if not path.exists():
            raise PyrasegError(f"There is no image at {path}. Correct the path.")
        name, phase = path.name.lower(), phase_of(img)
        if len(img) > 1 or path.is_dir() or not name.endswith(NIFTI + ITK + PHOTOGRAPH):
            pet_units = self.purpose.pet_units
            image = read_series(img, series=self.series, select=self.select, pet_units=pet_units)
            facts = {name: value for name, value in image.facts.items() if name not in aside}
            self.purpose.require(path.parent if len(img) > 1 else path, **facts)
            array, meta = from_dicom(image, rgb=self.rgb)
            return torch.from_numpy(array), meta  # of an array, LoadImage would change the order in memory
        if name.endswith(PHOTOGRAPH):
            return _padded(*from_photograph(path, rgb=self.rgb), path)
        if name.endswith(ITK):
            require("itk")
        try:
            array, meta = _volume(*(read_nifti(path, volume=phase) if name.endswith(NIFTI) else read_itk(path)))
            meta |= {"phase": phase} if phase else {}
        except PyrasegError:
            raise
        except Exception as error:  # Damaged files make both libraries raise nearly every type there is.
            lines = [line for line in str(error).split("\n") if ".cxx:" not in line]  # ITK names its source file first
            reason = " ".join(lines).strip()[:200] or type(error).__name__
            raise PyrasegError(
                f"{path} cannot be read as an image: {reason}. Replace the file or leave it out."
            ) from error
        if self.label:
            _require_finite(array, path)
            return array, meta
        if "plane" not in aside:
            self.purpose.require(path, plane=plane_of(meta["affine"]) if meta.get("oriented", True) else "")
        return _padded(array, meta, path)


def _volume(values: np.ndarray, meta: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Add to a volume (W, H, D[, parts]) what MONAI's transforms expect of its metadata."""
    return values, {
        **meta,
        "original_affine": meta["affine"].copy(),
        "space": SpaceKeys.RAS.value,
        "spatial_shape": np.array(values.shape[:3]),
        "original_channel_dim": 3 if values.ndim == 4 else "no_channel",
    }


def _padded(array: np.ndarray, meta: dict[str, Any], path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return an image whose pixels all have a value, and its metadata with how many are padding."""
    if array.dtype.kind != "f":
        return array, meta
    with np.errstate(over="ignore"):  # what becomes infinite is told
        array = np.require(array.astype(np.float32, copy=False), requirements="W")
    padding = fill_outside(array, str(path), axes=len(meta["spatial_shape"]))
    return array, {**meta, "padding": padding} if padding else meta


def _require_finite(values: np.ndarray, path: Path) -> None:
    if values.dtype.kind != "f":
        return
    count = int(np.count_nonzero(~np.isfinite(values)))
    if count:
        raise PyrasegError(
            f"The label {path} holds NaN or infinity, which is no class: {count} of {values.size} values. Correct what "
            "wrote the file, or leave it out."
        )


def from_dicom(image: DicomImage, *, rgb: bool = False) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the array and the metadata of a series that has been read, as `MedicalImageReader` describes them."""
    pixels = as_rgb(image.pixels, inverted=image.inverted, name=str(image.files[0])) if rgb else image.pixels
    color = pixels.ndim == 4
    array = np.moveaxis(pixels, (0, 1, 2), (2, 1, 0))  # in memory, slices still lie one after the other
    meta: dict[str, Any] = {
        "affine": LPS_TO_RAS.copy(),  # without a geometry: as displayed, in pixels
        "has_geometry": image.geometry is not None,
        "space": SpaceKeys.RAS.value,
        "spatial_shape": np.array(array.shape[:3]),
        "original_channel_dim": 3 if color else "no_channel",
        "voi": [tuple(asdict(voi) for voi in frame) for frame in image.voi],
        "inverted": bool(image.inverted),
        "for_processing": bool(image.for_processing),
        "padding": image.padding,
        "modality": image.modality,
        "units": image.units,
        "files": list(image.found) or [str(file) for file in image.files],
        "frame_numbers": image.frame_numbers,
        "series_uid": image.series_uid,
        "series_number": image.series_number,
        "series_description": image.series_description,
        "frame_of_reference_uid": image.frame_of_reference_uid,
        **({"phase": image.phase} if image.phase else {}),
        "sop_instance_uids": image.sop_instance_uids,
    }
    if image.geometry is not None:
        meta["affine"] = LPS_TO_RAS @ image.geometry.affine
        meta["slice_positions"] = image.geometry.positions
        if image.geometry.slice_thicknesses is not None:
            meta["slice_thicknesses"] = image.geometry.slice_thicknesses
    meta["original_affine"] = meta["affine"].copy()
    return array, meta


def from_photograph(path: Path, *, rgb: bool = False) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the array and the metadata of a photograph, as `MedicalImageReader` describes them."""
    array = read_photograph(path, rgb=rgb).swapaxes(0, 1)
    channels = "no_channel" if array.ndim == 2 else -1
    return array, {"spatial_shape": np.array(array.shape[:2]), "original_channel_dim": channels}


def geometry_of(image: MetaTensor) -> Geometry | None:
    """Return where the slices of an image (C, W, H, D) lie, as a reader left it; None without a patient position.

    Pictures, projections and stacks without geometry have none.
    """
    if image.ndim != 4 or not image.meta.get("has_geometry", True):
        return None
    return geometry_of_meta({**image.meta, "affine": image.affine}, image.shape[3])


def _first_path(part: Any) -> str:
    return "missing" if part is None else str(part if isinstance(part, str | PathLike) else part[0])

# SPDX-License-Identifier: Apache-2.0
"""One reader for `LoadImaged`: DICOM through our own pixel chain, other formats through MONAI's readers by name."""

from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader, ITKReader, NibabelReader, PILReader
from monai.utils import SpaceKeys, ensure_tuple
from PIL import Image, UnidentifiedImageError

from bundle.pyraseg.dicom.series import DicomImage, read_series
from bundle.pyraseg.errors import PyrasegError

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PHOTOGRAPH = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class MedicalImageReader(ImageReader):
    """Read whatever an item of a data list names; the format is told by the suffix, and DICOM is what remains.

    A DICOM series (a folder or several files), file or multi-frame object becomes (W, H, D) float32 in rescaled units
    (colour: (W, H, D, 3) uint8) with the slices along the image plane's normal, neither windowed nor inverted. Its
    metadata hold what later transforms need: `affine` (RAS mm), `slice_positions` (D, 3) in LPS mm where the image has
    a geometry, `voi` (for each slice the windows of the header, as mappings), `inverted`, `for_processing`, `modality`,
    `units`.

    NIfTI is read by MONAI's NibabelReader, NRRD and MetaImage by its ITKReader, PNG, JPEG and the like by its PILReader
    as grey or RGB. None of the three knows windows or polarity.

    Args:
        series_uid: which series to read where a path holds several DICOM series.
        select: which phase, echo or b-value to read where a series holds several, such as {"AcquisitionNumber": 2}.
        rgb: make every photograph RGB, grey ones too; without it they keep one channel or three.
    """

    def __init__(
        self, *, series_uid: str | None = None, select: dict[str, Any] | None = None, rgb: bool = False
    ) -> None:
        self.series_uid = series_uid
        self.select = select
        self.rgb = rgb

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> list[Path]:
        """Return the paths alone: `LoadImage` tries other readers, in silence, when `read` raises."""
        return [Path(path) for path in ensure_tuple(data)]

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the array and its metadata.

        Raises:
            PyrasegError: a path that does not exist, a file that cannot be read, or a DICOM refusal.
        """
        path = Path(img[0])
        if not path.exists():
            raise PyrasegError(f"There is no image at {path}. Correct the path.")
        name = path.name.lower()
        if len(img) > 1 or path.is_dir() or not name.endswith(NIFTI + ITK + PHOTOGRAPH):
            return _from_dicom(read_series(img, series_uid=self.series_uid, select=self.select))
        try:
            if name.endswith(NIFTI):
                reader = NibabelReader()
            elif name.endswith(ITK):
                reader = ITKReader()
            else:
                reader = PILReader(converter=_to_rgb if self.rgb else _grey_or_rgb)
            return reader.get_data(reader.read(path))
        except (OSError, RuntimeError, ValueError, EOFError, UnidentifiedImageError) as error:
            if isinstance(error, PyrasegError):
                raise
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise PyrasegError(
                f"{path} cannot be read as an image: {reason}. Replace the file or leave it out."
            ) from error


def _from_dicom(image: DicomImage) -> tuple[np.ndarray, dict[str, Any]]:
    colour = image.pixels.ndim == 4
    array = np.ascontiguousarray(np.moveaxis(image.pixels, (0, 1, 2), (2, 1, 0)))
    meta = {
        "affine": np.eye(4),
        "space": SpaceKeys.RAS.value,
        "spatial_shape": np.array(array.shape[:3]),
        "original_channel_dim": 3 if colour else "no_channel",
        "voi": [tuple(asdict(voi) for voi in frame) for frame in image.voi],
        "inverted": bool(image.inverted),
        "for_processing": bool(image.for_processing),
        "modality": image.modality,
        "units": image.units,
    }
    if image.geometry is not None:
        meta["affine"] = LPS_TO_RAS @ image.geometry.affine
        meta["slice_positions"] = image.geometry.positions
    meta["original_affine"] = meta["affine"].copy()
    return array, meta


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    """Drop the alpha channel, expand a palette, and keep 16-bit grey values."""
    if image.mode in ("L", "RGB") or image.mode.startswith("I"):
        return image
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")

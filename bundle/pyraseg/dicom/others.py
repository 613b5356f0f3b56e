# SPDX-License-Identifier: Apache-2.0
"""Images that are no slices and no pictures: whole slides of microscopy, and videos."""

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import MPEGTransferSyntaxes, VLWholeSlideMicroscopyImageStorage

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom.headers import transfer_syntax

#: SOP classes whose frames are tiles of a larger picture, at several magnifications.
TILED = (VLWholeSlideMicroscopyImageStorage, "1.2.840.10008.5.1.4.1.1.77.1.9")  # the second: confocal, pyramidal


def refuse_others(file: Path, header: Dataset) -> None:
    """Refuse an image that is neither slices nor a picture, by its name.

    Raises:
        PyrasegError: it is a whole slide or a video.
    """
    if header.get("SOPClassUID") in TILED or header.get("Modality") == "SM":
        raise PyrasegError(
            f"{file} is a whole slide of microscopy (modality {header.get('Modality') or 'SM'}): its frames are tiles "
            "of one picture, which may have billions of pixels. Save the region to segment as PNG or TIFF, with "
            "OpenSlide or QuPath for instance, and give that as a photograph."
        )
    if (syntax := transfer_syntax(header)) in MPEGTransferSyntaxes:
        raise PyrasegError(
            f"{file} is a video ({syntax.name}), which is not decoded. Save the frames to segment as PNG, with a "
            "viewer for instance, and give those as photographs."
        )

# SPDX-License-Identifier: Apache-2.0
"""The views of a study that stand under one Series Instance UID: PA and lateral, CC and MLO, left and right.

They are images of their own, no slices of a stack.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import CTImageStorage

from bundle.pyraseg.dicom.apart import Member
from bundle.pyraseg.dicom.headers import frame_count, frame_value, items_of

TOMOGRAPHIC = ("CT", "MR", "PT")
#: Modalities whose images are views even where their headers say where the detector was.
PROJECTIONS = ("CR", "DX", "IO", "MG", "PX", "RG")
#: Codes of mammographic views in the words of View Position (PS3.16 CID 4014).
_CODES = {"399162004": "CC", "399368009": "MLO", "399260004": "ML", "399352003": "LM", "399099002": "LMO",
          "399188001": "XCCL", "399192008": "XCCM", "399161006": "FB"}  # fmt: skip
KEYWORDS = ("ViewPosition", "ViewCodeSequence", "ImageLaterality", "Laterality", "PatientOrientation",
            "ConcatenationUID")  # fmt: skip


def split_views(members: Sequence[Member]) -> list[list[Member]]:
    """Return the views that files of one series are, or all files together where they may be slices.

    Images without a place in the patient are views, but for those of tomography, which have lost it. So are images of
    `PROJECTIONS`, those of tomosynthesis each with frames of its own; single ones of mammography that are stored as CT
    are slices. The files of a whole slide are one picture, and those of a concatenation one image.
    """
    if str(members[0].header.get("Modality") or "") in (*TOMOGRAPHIC, "SM") or not all(
        _is_view(member) for member in members
    ):
        return [list(members)]
    images: dict[object, list[Member]] = defaultdict(list)
    for member in members:
        images[str(member.header.get("ConcatenationUID") or "") or Path(member.file)].append(member)
    return list(images.values())


def _is_view(member: Member) -> bool:
    header = member.header
    if str(header.get("Modality") or "") in PROJECTIONS and (
        frame_count(header) > 1 or header.get("SOPClassUID") != CTImageStorage
    ):
        return True
    return not frame_value(header, 0, "ImagePositionPatient")


def view_of(header: Dataset) -> str:
    """Return which view an image is, in letters and digits: ``L_MLO``, ``PA``; nothing where its header does not say.

    A radiograph that says only which way its rows run is ``frontal`` or ``lateral``.
    """
    side = str(header.get("ImageLaterality") or header.get("Laterality") or "").strip()
    position = str(header.get("ViewPosition") or "").strip()
    if not position:
        codes = items_of(header, "ViewCodeSequence", "")
        position = next((text for item in codes if (text := _CODES.get(str(item.get("CodeValue")), ""))), "")
    rows = header.get("PatientOrientation")
    if not position and isinstance(rows, MultiValue) and header.get("Modality") in ("CR", "DX", "RG"):
        position = {"L": "frontal", "R": "frontal", "A": "lateral", "P": "lateral"}.get(str(rows[0])[:1], "")
    words = (re.sub("[^A-Za-z0-9]+", "-", word).strip("-") for word in (side, position))
    return "_".join(word for word in words if word)

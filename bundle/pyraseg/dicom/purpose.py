# SPDX-License-Identifier: Apache-2.0
"""What a model is for: modality, body part and plane of its images, and the unit of PET; other images are told.

A network finds something in every image. Whether the image is of the kind that it was trained on, only the header says.
"""

import logging
import re
from collections.abc import Sequence

import numpy as np

from bundle.pyraseg.core import PyrasegError, nearest_hint
from bundle.pyraseg.dicom.affines import unit_normal
from bundle.pyraseg.dicom.frame import Frame, short
from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.dicom.headers import frame_value
from bundle.pyraseg.dicom.uptake import PET_UNITS, SUV

logger = logging.getLogger(__name__)

#: What is compared, by the options that say it, and how a message names it.
ASPECTS = {
    "modality": "modality",
    "body_part": "body part",
    "plane": "plane of the slices",
    "pet_units": "unit",
}
#: Planes by the axis of the patient that slices follow: to the left, to the back, to the head.
PLANES = ("sagittal", "coronal", "axial")
OBLIQUE = "oblique"
#: Slices are in a plane where their normal is at most so many degrees from that of it.
PLANE_TOLERANCE = 30.0
#: What people call modalities, by the names that DICOM has for them.
SPOKEN = {"PET": "PT", "MRI": "MR", "SPECT": "NM"}
#: Another of these is refused unless told otherwise; of the others a header is often wrong, or says too little.
REFUSED = ("modality",)
#: What refuses nothing, as it is typed.
NOTHING = "none"
OneOrMore = str | Sequence[str] | None


class Purpose:
    """Hold what images a model is for, and compare images with it.

    Args:
        modality: as DICOM names them, such as "CT"; one or several; None: any.
        body_part: texts, of which the body part in the header must have one within: "ABDOMEN" is in "CHESTABDOMEN", and
            in "Upper Abdomen"; None: any.
        plane: "axial", "coronal", "sagittal" or "oblique", the plane in which slices were acquired; None: any.
        pet_units: what PET is read in: "suv", or "stored" values.
        refuse: of which of these options an image of another kind is refused; of the rest it is warned of. Several
            may be one text, "modality,plane". "none" (or nothing) refuses none.

    Raises:
        PyrasegError: something is none of what it can be.
    """

    def __init__(
        self,
        *,
        modality: OneOrMore = None,
        body_part: OneOrMore = None,
        plane: OneOrMore = None,
        pet_units: str = "suv",
        refuse: OneOrMore = REFUSED,
    ) -> None:
        self.modality = [name.upper() for name in listed(modality)]
        self.body_part = [name.upper() for name in listed(body_part)]
        self.plane = [_known(name, (*PLANES, OBLIQUE), "plane") for name in listed(plane)]
        self.pet_units = _known(pet_units, PET_UNITS, "pet_units")
        self.refuse = [_known(name, (*ASPECTS, NOTHING), "refuse") for name in _separate(refuse)]
        if spoken := [name for name in self.modality if name in SPOKEN]:
            raise PyrasegError(f"In DICOM, the modality {spoken[0]} is {SPOKEN[spoken[0]]}: say that.")

    def __str__(self) -> str:
        """Say what the images are, as a sentence."""
        said = {
            "modality": self.modality,
            "body part": self.body_part,
            "plane of the slices": self.plane,
            "unit of PET": [SUV] if self.pet_units == "suv" and {"PT"} & set(self.modality) else [],
        }
        words = "; ".join(f"{name} {' or '.join(values)}" for name, values in said.items() if values)
        return (
            f"It is for images of this kind, and warns of or refuses others: {words}."
            if words
            else ("It is for images of its kind, whatever modality and body part a header states.")
        )

    def require(
        self, where: object, *, modality: str = "", body_part: str = "", plane: str = "", units: str = ""
    ) -> None:
        """Refuse an image of another kind, or tell of it; what its header does not say is not compared.

        Args:
            where: what names the image in messages.
            modality, body_part: in the header.
            plane: of its slices, see `plane_of`.
            units: of its values.

        Raises:
            PyrasegError: it differs in what `refuse` names.
        """
        letters = re.sub(r"[^A-Z]", "", body_part.upper())
        differing = {
            "modality": (modality.upper(), self.modality, modality.upper() in self.modality),
            "body_part": (body_part, self.body_part, any(_letters(part) in letters for part in self.body_part)),
            "plane": (plane, self.plane, plane in self.plane),
        }
        if modality == "PT" and self.pet_units == "suv" and "pet_units" in self.refuse:  # reading has told
            differing["pet_units"] = (units, [SUV], units == SUV)
        for aspect, (found, wanted, fits) in differing.items():
            if not found or not wanted or fits:
                continue
            told = f"{where}: its {ASPECTS[aspect]} is {found}, and the model is for {' or '.join(wanted)}."
            if aspect not in self.refuse:
                logger.warning("%s What it finds there may mean nothing.", told)
                continue
            others = [name for name in self.refuse if name not in (aspect, NOTHING)]
            trained = f"A model for such images is trained with --{aspect} {found}. " if aspect != "pet_units" else ""
            raise PyrasegError(
                f"{told} Leave it out. {trained}To segment it all the same: --refuse {','.join(others) or NOTHING}."
            )


def listed(value: OneOrMore) -> list[str]:
    """Return one name, several or none as a list."""
    return [value] if isinstance(value, str) else list(value or ())


def _separate(value: OneOrMore) -> list[str]:
    return [name.strip() for text in listed(value) for name in text.split(",")]


def facts_of(frame: Frame, geometry: Geometry | None, *, modality: str, units: str) -> dict[str, str]:
    """Return what `Purpose.require` compares of a series; nothing stands for what its header does not say.

    Args:
        frame: one of the slices.
        geometry: of all.
        modality: of the series.
        units: of the values.
    """
    region = frame_value(frame.header, frame.index, "AnatomicRegionSequence")
    named = frame.value("BodyPartExamined")
    if not named and isinstance(region, Sequence) and region:
        named = region[0].get("CodeMeaning")
    plane = plane_of(geometry.affine) if geometry is not None else ""
    return {"modality": modality, "body_part": short(str(named or "")), "plane": plane, "units": units}


def plane_of(affine: np.ndarray) -> str:
    """Return the plane of the slices of a volume, by what leads from its voxels to the patient, (4, 4) in mm."""
    normal = np.abs(unit_normal(affine[:3, 0], affine[:3, 1]))
    axis = int(np.argmax(normal))
    return PLANES[axis] if normal[axis] >= np.cos(np.radians(PLANE_TOLERANCE)) else OBLIQUE


def _letters(text: str) -> str:
    return re.sub(r"[^A-Z]", "", text)


def _known(value: str, known: Sequence[str], option: str) -> str:
    if value not in known:
        raise PyrasegError(f"{option} is {value!r}; it is one of {', '.join(known)}.{nearest_hint(str(value), known)}")
    return value

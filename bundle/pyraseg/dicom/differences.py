# SPDX-License-Identifier: Apache-2.0
"""What images of one series that lie in one place differ in, and what they then are, in words."""

from collections.abc import Collection, Mapping

#: What may tell stacks apart within one series, the most telling first, and what they then are.
PHASES = {
    "AcquisitionNumber": "acquisitions",
    "FrameAcquisitionNumber": "acquisitions",
    "EchoTime": "echoes",
    "EffectiveEchoTime": "echoes",
    "EchoNumbers": "echoes",
    "TemporalPositionIdentifier": "times of a dynamic series",
    "TemporalPositionIndex": "times of a dynamic series",
    "DiffusionBValue": "b-values",
    "DiffusionGradientOrientation": "diffusion directions",
    "ASLContext": "labeled and control images",
    "ContrastBolusAgent": "contrast phases",
    "InversionTime": "inversion times",
    "TriggerTime": "cardiac phases (a cine)",
    "NominalPercentageOfCardiacPhase": "cardiac phases (a cine)",
    "FlipAngle": "flip angles",
    "ComplexImageComponent": "magnitude, phase, real or imaginary images",
    "ImageType": "kinds of image",
    "FrameType": "kinds of image",
    "ConvolutionKernel": "reconstructions",
    "KVP": "tube voltages",
    "StackID": "stacks",
    "EnergyWindowVector": "energy windows",
    "DetectorVector": "detectors",
    "PhaseVector": "phases of a dynamic scan",
    "RRIntervalVector": "intervals between heart beats",
    "TimeSlotVector": "cardiac phases (a cine)",
    "TimeSliceVector": "times of a dynamic scan",
    "SeriesNumber": "series",
    "AcquisitionTime": "times",
    "ContentTime": "times",
}
#: What says for sure what images are, also where something else chooses them.
CERTAIN = (
    *("EchoTime", "EffectiveEchoTime", "DiffusionBValue", "DiffusionGradientOrientation", "ASLContext"),
    *("InversionTime", "ComplexImageComponent", "ImageType", "FrameType"),
)
VAGUE = ("acquisitions", "kinds of image", "series", "stacks", "times")
#: Values of Image Type, as scanners write them, and what images are that differ in some of a row.
_IMAGE_TYPES = {
    "Dixon images (water, fat, in and out of phase)": (
        *("WATER", "FAT", "IN_PHASE", "OUT_PHASE", "OUT_OF_PHASE", "OPP_PHASE", "OPPOSED_PHASE", "FAT_FRACTION"),
        *("W", "F", "IP", "OP", "INPHASE", "OPPPHASE", "FF", "FAT_FRAC", "T2_STAR", "R2_STAR"),
    ),
    "magnitude, phase, real or imaginary images": (
        *("M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY", "PHASE MAP"),
        *(f"{part}_{sequence}" for part in "MPRI" for sequence in ("SE", "FFE", "IR", "PCA")),
    ),
    "diffusion images and maps computed from them": (
        *("ADC", "TRACE", "TRACEW", "FA", "EADC", "EXP", "ISO", "CALC_BVALUE", "DIFFUSION", "ANISO", "TENSOR"),
    ),
    "perfusion images and maps computed from them": (
        *("CBF", "CBV", "MTT", "TTP", "TMAX", "RCBF", "RCBV", "PBP", "PERFUSION", "GBP", "RELCBF", "RELCBV"),
    ),
    "labeled and control images": ("LABEL", "CONTROL", "TAG"),
    "projections of a volume, and slices": ("MIP", "MINIP", "MPR", "PROJECTION IMAGE", "VOLUME_RENDER"),
    "images before and after a subtraction": ("SUB", "SUBTRACTION", "SUBTRACTED"),
    "original and derived images": ("ORIGINAL", "DERIVED"),
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # its multi-frame kinds add a suffix


def kinds_of(values: Mapping[str, Collection[object]], chosen: Collection[str]) -> list[str]:
    """Return what images in one place are, in words, as specific as their headers are.

    Args:
        values: those of each attribute of `PHASES` that differ.
        chosen: the attributes of these by which one stack of them can be chosen.

    >>> types = [("DERIVED", "PRIMARY", "DIXON", "WATER"), ("DERIVED", "PRIMARY", "DIXON", "FAT")]
    >>> kinds_of({"AcquisitionNumber": [1, 2], "ImageType": types}, ["AcquisitionNumber"])
    ['Dixon images (water, fat, in and out of phase)']
    """
    named = {keyword: _kind(keyword, found) for keyword, found in values.items()}
    told = [keyword for keyword in named if keyword in chosen or keyword in CERTAIN] or list(named)
    kinds = list(dict.fromkeys(named[keyword] for keyword in told))
    return [kind for kind in kinds if kind not in VAGUE] or kinds


def _kind(keyword: str, values: Collection[object]) -> str:
    if keyword not in ("ImageType", "FrameType"):
        return PHASES[keyword]
    texts = [{str(part).strip().upper() for part in (value if isinstance(value, tuple) else (value,))}
             for value in values]  # fmt: skip
    differing = set.union(*texts) - set.intersection(*texts)
    return next((what for what, known in _IMAGE_TYPES.items() if differing.intersection(known)), PHASES[keyword])


def are_pages(types: Collection[object], sop_classes: Collection[object]) -> bool:
    """Return whether images that all lie in one place are pages to be read: exam summaries, dose reports, protocols.

    Args:
        types: their Image Types.
        sop_classes: their SOP classes.
    """
    if all(str(uid).startswith(SECONDARY_CAPTURE) for uid in sop_classes):
        return True
    return all(isinstance(value, tuple) and "SECONDARY" in map(str, value) for value in types)

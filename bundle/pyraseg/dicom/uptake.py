# SPDX-License-Identifier: Apache-2.0
"""Standardized uptake values of PET: what turns the values of a series into them, or why nothing does.

They are those by body weight, in g/ml: activity in Bq/ml, times weight in g, by the dose in Bq as far as it has decayed
at the time to which the image was corrected. Which attributes say so, and where vendors differ, is as in the
vendor-neutral pseudocode of the Quantitative Imaging Biomarkers Alliance (QIBA, FDG-PET/CT, 2012).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median

from pydicom.dataset import Dataset

from bundle.pyraseg.dicom.frame import Frame
from bundle.pyraseg.dicom.headers import frame_value, functional_group, private_value
from bundle.pyraseg.dicom.luts import VoiLut, VoiWindow

#: What a series can be asked for: uptake values where the header gives what is needed, or what is stored.
PET_UNITS = ("suv", "stored")
#: The unit of uptake values by body weight.
SUV = "SUVbw"
UNKNOWN = "an unknown unit"
#: Private values by group, creator and element: Philips's factors to SUV and to Bq/ml, GE's start of the scan.
TO_SUV, TO_ACTIVITY = (0x7053, "Philips PET Private Group", 0x00), (0x7053, "Philips PET Private Group", 0x09)
SCAN_START = (0x0009, "GEMS_PETD_01", 0x0D)
#: What is read for all this, beside the phases of a scan: elements of the standard, and private ones in the first
#: blocks of their groups.
PET_KEYWORDS = (
    "Units SUVType DecayCorrection DecayCorrected CorrectedImage AttenuationCorrected SeriesDate SeriesTime "
    "AcquisitionDate DecayCorrectionDateTime FrameReferenceTime ActualFrameDuration PatientWeight "
    "TimezoneOffsetFromUTC RadiopharmaceuticalInformationSequence"
)
PRIVATE_TAGS = tuple(
    group << 16 | tag
    for group, _, element in (TO_SUV, TO_ACTIVITY, SCAN_START)
    for block in (0x10, 0x11, 0x12)
    for tag in (block, block << 8 | element)
)
#: Codes of UCUM, as enhanced images have them, by the names of Units (PS3.3 C.8.9.1).
UCUM = {"Bq/ml": "BQML", "{counts}": "CNTS", "g/ml{SUVbw}": "GML", "{SUVbw}g/ml": "GML"}
#: What a weight in kg and a dose in Bq can be, of a mouse as of a man: others are in another unit.
WEIGHTS, DOSES = (0.005, 700.0), (1e4, 1e11)
#: An injection longer ago than so many half-lives left nothing to see: one of the two times is wrong.
MOST_HALF_LIVES = 10
#: A nuclide that lives longer, in s, may have been injected on another day: its date counts.
LONG_LIVED = 6 * 3600
#: By how much, in s, the starts of a scan that its slices tell may differ.
TIME_TOLERANCE = 60.0
DAY = timedelta(days=1)


class _Lacking(Exception):
    """Say why there is no uptake value."""


@dataclass(frozen=True)
class Uptake:
    """Hold what turns the rescaled values of frames into those of a unit.

    Attributes:
        unit: `SUV`, else the stored one as the header names it; `UNKNOWN` where it names none.
        factors: one for each frame.
        reason: why the values are none of uptake, or nothing.
    """

    unit: str
    factors: tuple[float, ...]
    reason: str = ""


def uptake_of(headers: Sequence[Dataset], frames: Sequence[Frame]) -> Uptake:
    """Return what makes uptake values of frames of PET.

    Args:
        headers: of all files of the series.
        frames: those that are read.
    """
    stored = stored_unit(frames)
    try:
        if stored.unit == "GML":
            return replace(stored, unit=SUV)
        if stored.unit not in ("BQML", "CNTS"):
            raise _Lacking("they follow from values in BQML, CNTS or GML alone")
        scan = _Scan(headers)
        return Uptake(SUV, tuple(_factor(frame, scan, counts=stored.unit == "CNTS") for frame in frames))
    except _Lacking as lacking:
        return replace(stored, reason=str(lacking))


def stored_unit(frames: Sequence[Frame]) -> Uptake:
    """Return what leaves frames of PET as they are, with the name of their unit."""
    unit = " and ".join(sorted({_unit(frame) for frame in frames})) or UNKNOWN
    return Uptake(unit, (1.0,) * len(frames))


def in_unit(views: Sequence[VoiWindow | VoiLut], factor: float) -> tuple[VoiWindow | VoiLut, ...]:
    """Return by what a header shows rescaled values, for values times a factor; tables, of whole numbers, go."""
    return (
        tuple(views) if factor == 1 else tuple(_scaled(view, factor) for view in views if isinstance(view, VoiWindow))
    )


def _scaled(window: VoiWindow, factor: float) -> VoiWindow:
    if window.function != "LINEAR" or window.width <= 1:
        return VoiWindow(window.center * factor, window.width * factor, window.function, window.explanation)
    center, width = window.ramp  # the half and the one that LINEAR takes off are of the stored unit
    return VoiWindow(center * factor, width * factor, "LINEAR_EXACT", window.explanation)


def _unit(frame: Frame) -> str:
    """Return the stored unit as Units names it (PS3.3 C.8.9.1); GML that is not by body weight says by what it is."""
    unit = str(frame.value("Units") or "").strip().upper()
    mapping = functional_group(frame.header, frame.index, "RealWorldValueMappingSequence")
    rescaling = functional_group(frame.header, frame.index, "PixelValueTransformationSequence")
    if not unit and mapping is not None and rescaling is not None and mapping.get("MeasurementUnitsCodeSequence"):
        slopes = [item.get(name) for item, name in ((mapping, "RealWorldValueSlope"), (rescaling, "RescaleSlope"))]
        if None not in slopes and math.isclose(*map(float, slopes), rel_tol=1e-6):
            code = str(mapping.MeasurementUnitsCodeSequence[0].get("CodeValue") or "")
            unit = UCUM.get(code, code)
    if not unit:
        unit = str(frame.value("RescaleType") or "").strip().upper()
        unit = "" if unit == "US" else unit
    size = str(frame.value("SUVType") or "BW").strip().upper()  # without a type it is body weight
    return f"GML ({size})" if unit == "GML" and size != "BW" else unit


def _factor(frame: Frame, scan: "_Scan", *, counts: bool) -> float:
    """Return what a rescaled value, an activity or a count, is to be multiplied with.

    Raises:
        _Lacking: the header does not say.
    """
    _require_corrected(frame)
    factor = 1.0
    if counts:
        if to_suv := _private_number(frame.header, TO_SUV):
            return to_suv
        factor = _private_number(frame.header, TO_ACTIVITY)
        if not factor:
            raise _Lacking("counts need a factor of the scanner, as Philips's (7053,1000) or (7053,1009)")
    weight = _number(frame.value("PatientWeight"), "PatientWeight", WEIGHTS)
    items = frame_value(frame.header, frame.index, "RadiopharmaceuticalInformationSequence")
    if not isinstance(items, Sequence) or len(items) != 1:
        raise _Lacking(f"the header tells of {'several injections' if items else 'no injection'}")
    (item,) = items
    enhanced = frame.value("DecayCorrectionDateTime") is not None  # whose dose is in MBq (PS3.3 C.8.22.4)
    dose = item.get("RadionuclideTotalDose")
    dose = _number(dose if not (enhanced and dose) else float(dose) * 1e6, "RadionuclideTotalDose", DOSES)
    if frame.value("DecayCorrection") != "ADMIN" or enhanced:
        half_life = _number(item.get("RadionuclideHalfLife"), "RadionuclideHalfLife", (1.0, math.inf))
        dose *= 2 ** (-scan.after_injection(frame, item, half_life) / half_life)
    return factor * weight * 1000 / dose


def _require_corrected(frame: Frame) -> None:
    """Refuse activities that were not corrected for attenuation and decay, or not to a time that is known.

    Raises:
        _Lacking: they were not.
    """
    stated = frame.value("CorrectedImage") or ()
    names = {str(name).strip().upper() for name in (stated if isinstance(stated, tuple) else (stated,))}
    answers = frame.value("AttenuationCorrected"), frame.value("DecayCorrected")
    if "NO" in answers or (names and not ("ATTN" in names and names & {"DECY", "DECAY"})):
        raise _Lacking("it is not corrected for attenuation and decay")
    correction = frame.value("DecayCorrection")
    if frame.value("DecayCorrectionDateTime") is None and correction not in ("START", "ADMIN"):
        raise _Lacking(f"Decay Correction is {correction or 'absent'}, neither START nor ADMIN")


def _number(value: object, name: str, limits: tuple[float, float]) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise _Lacking(f"the header has no {name}") from error
    if not limits[0] <= number <= limits[1]:
        raise _Lacking(f"{name} is none in the unit of the standard")
    return number


def _private_text(header: Dataset, place: tuple[int, str, int]) -> str:
    value = private_value(header, *place)
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")).strip(" \0")


def _private_number(header: Dataset, place: tuple[int, str, int]) -> float:
    """Return a factor; 0 where there is none."""
    try:
        factor = float(_private_text(header, place))
    except ValueError:
        return 0.0
    return factor if 0 < factor < math.inf else 0.0


class _Scan:
    """When a scan began, to which time images are corrected that are corrected to START."""

    def __init__(self, headers: Sequence[Dataset]) -> None:
        self.headers = headers
        self.dated = all(header.get("AcquisitionDate") or header.get("SeriesDate") for header in headers)
        found = [_acquisition(header) for header in headers]
        self.acquired = [moment for moment in found if moment is not None]
        self._starts: dict[float, datetime] = {}

    def after_injection(self, frame: Frame, item: Dataset, half_life: float) -> float:
        """Return how long after the injection the time lies to which a frame was corrected, in s.

        An injection whose day is not told was on the day of the scan, or before midnight. A scan may begin before the
        injection that it watches.

        Raises:
            _Lacking: a time is missing, or the two cannot both be right.
        """
        stated = str(frame_value(frame.header, frame.index, "DecayCorrectionDateTime") or "")
        zone = frame.header.get("TimezoneOffsetFromUTC") or "".join(re.findall(r"[+-]\d{4}$", stated))
        own = _moment(stated, zone=zone)
        corrected = own or self._start(half_life)
        last = corrected if own else max([corrected, *self.acquired])
        injected = _moment(item.get("RadiopharmaceuticalStartDateTime"), zone=zone)
        time, of_day = _time(item.get("RadiopharmaceuticalStartTime")), None
        if injected is not None:
            of_day = injected - injected.replace(hour=0, minute=0, second=0, microsecond=0)
            if time is not None and TIME_TOLERANCE < abs((time - of_day).total_seconds()) < 86400 - TIME_TOLERANCE:
                raise _Lacking("the header tells of two times of the injection")
            if (own or self.dated) and injected <= last and _is_possible(corrected - injected, half_life):
                return (corrected - injected).total_seconds()
        time = of_day if time is None else time
        if time is None:
            raise _Lacking("the header has no RadiopharmaceuticalStartTime")
        if half_life > LONG_LIVED:
            raise _Lacking("the header does not tell on which day a nuclide that lives long was injected")
        injected = corrected.replace(hour=0, minute=0, second=0, microsecond=0) + time
        if injected > last:
            injected -= DAY
        if not _is_possible(corrected - injected, half_life):
            raise _Lacking(f"the times of injection and scan are more than {MOST_HALF_LIVES} half-lives apart")
        return (corrected - injected).total_seconds()

    def _start(self, half_life: float) -> datetime:
        if half_life not in self._starts:
            self._starts[half_life] = self._find_start(half_life)
        return self._starts[half_life]

    def _find_start(self, half_life: float) -> datetime:
        """Return the time of the series, unless that was written later than the images were acquired."""
        dates = [header.get("SeriesDate") or header.get("AcquisitionDate") for header in self.headers]
        times = [header.get("SeriesTime") for header in self.headers]
        begun = [moment for date, time in zip(dates, times, strict=True) if (moment := _moment(date, time)) is not None]
        if begun and (not self.acquired or max(begun) <= min(self.acquired)):
            return min(begun)
        stated = [_moment(_private_text(header, SCAN_START)) for header in self.headers]
        if moments := [moment for moment in stated if moment is not None]:
            return min(moments)
        computed = [moment for header in self.headers if (moment := _computed_start(header, half_life)) is not None]
        if computed:
            first = computed[0]
            seconds = [(moment - first).total_seconds() for moment in computed]
            if max(seconds) - min(seconds) > TIME_TOLERANCE:
                raise _Lacking("its slices tell of several starts of the scan")
            return first + timedelta(seconds=median(seconds))
        if not self.acquired:
            raise _Lacking("the header has no SeriesTime and no AcquisitionTime")
        return min(self.acquired)


def _acquisition(header: Dataset) -> datetime | None:
    return _moment(header.get("AcquisitionDate") or header.get("SeriesDate"), header.get("AcquisitionTime"))


def _computed_start(header: Dataset, half_life: float) -> datetime | None:
    """Return the start of a scan by a frame's own times.

    Frame Reference Time (ms) leads from it to the moment at which the activity is the mean of the frame.
    """
    acquired = _acquisition(header)
    try:
        reference, duration = (
            float(header.get(name) or 0) / 1000 for name in ("FrameReferenceTime", "ActualFrameDuration")
        )
    except (TypeError, ValueError):
        return None
    if acquired is None or reference <= 0 or duration <= 0:
        return None
    decay = math.log(2) / half_life
    mean = math.log(decay * duration / -math.expm1(-decay * duration)) / decay
    return acquired + timedelta(seconds=mean - reference)


def _is_possible(elapsed: timedelta, half_life: float) -> bool:
    return abs(elapsed.total_seconds()) <= MOST_HALF_LIVES * half_life


def _moment(date: object, time: object = None, *, zone: object = None) -> datetime | None:
    """Return a date with a time (DA, TM), or both in one (DT), as clocks at the scanner show it; None without a time.

    A date that is not known is the first one that there is. A time with another offset than the scanner's is brought to
    that of the scanner.
    """
    if time in (None, "") and date:
        found = re.fullmatch(r"(\d{8})(\d{2}[\d.]*)([+-]\d{4})?", str(date or "").strip())
        if not found:
            return None
        date, time, own = found.groups()
        shift = _offset(zone) - _offset(own) if own and zone else timedelta(0)
    else:
        shift = timedelta(0)
    clock = _time(time)
    if clock is None:
        return None
    try:
        day = datetime.strptime(re.sub(r"\D", "", str(date or "")) or "00010102", "%Y%m%d")
        return day + clock + shift
    except (ValueError, OverflowError):
        return None


def _offset(zone: object) -> timedelta:
    found = re.fullmatch(r"([+-])(\d{2})(\d{2})", str(zone).strip())
    if not found:
        return timedelta(0)
    sign, hours, minutes = found.groups()
    return timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)


def _time(value: object) -> timedelta | None:
    """Return the time of day of a TM value, HHMMSS.FFFFFF with as many of its parts as there are."""
    found = re.fullmatch(r"(\d{2})(?:(\d{2})(?:(\d{2}(?:\.\d*)?))?)?", str(value or "").strip().replace(":", ""))
    if not found:
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)

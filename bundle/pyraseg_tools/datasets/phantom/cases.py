# SPDX-License-Identifier: Apache-2.0
"""What is special about each of the 24 patients, and where each one's voxels lie."""

from dataclasses import dataclass, field

import numpy as np

from bundle.pyraseg_tools.datasets.phantom.anatomy import Absent, Anatomy
from bundle.pyraseg_tools.datasets.phantom.intensity import PHASES, add_scanner
from bundle.pyraseg_tools.datasets.phantom.shapes import rotation_matrix

NO_LESION = Absent(lesion=True)


@dataclass(frozen=True)
class CasePlan:
    """The traits of one patient's files.

    Traits: reversed (slices run to the feet), oblique, tilted (gantry), wide (rows unequal to columns), circle
    (padding outside the reconstruction circle), rescale (slope and intercept vary by slice), windows (several centers
    and widths), multiframe (Enhanced CT), jpeg2000, scout.
    """

    label: str  # seg, nifti, or nifti-flipped (stored along other axes, left-handed)
    traits: frozenset[str] = frozenset()
    absent: Absent = field(default_factory=Absent)


def _plan(label: str, traits: str = "", absent: Absent | None = None) -> CasePlan:
    return CasePlan(label, frozenset(traits.split()), absent or Absent())


PLANS = (
    # training
    _plan("seg"),
    _plan("nifti", "reversed"),
    _plan("seg", "oblique"),
    _plan("nifti-flipped", "wide", NO_LESION),
    _plan("seg", "tilted"),
    _plan("nifti", "windows", Absent(spleen=True)),
    _plan("seg", "multiframe"),
    _plan("nifti-flipped", "circle", NO_LESION),
    _plan("nifti", "jpeg2000"),
    _plan("seg", "scout"),
    _plan("nifti", "rescale", Absent(right_kidney=True)),
    _plan("seg", "windows wide"),
    _plan("nifti-flipped", "oblique reversed", NO_LESION),
    _plan("seg", "tilted circle"),
    # validation
    _plan("nifti"),
    _plan("seg", "tilted", NO_LESION),
    _plan("nifti", "oblique"),
    _plan("seg", "circle reversed", Absent(spleen=True)),
    _plan("nifti-flipped", "wide", Absent(right_kidney=True, left_kidney=True)),
    # test
    _plan("seg", "windows"),
    _plan("nifti", "tilted"),
    _plan("seg", "oblique"),
    _plan("nifti", "jpeg2000 reversed", Absent(spleen=True, left_kidney=True)),
    _plan("seg", "multiframe", NO_LESION),
)


@dataclass(frozen=True)
class PhantomCase:
    """One patient in memory: HU and labels on a stack of parallel slices, in patient coordinates (mm)."""

    plan: CasePlan
    phase: str
    hu: np.ndarray  # (N, rows, columns) int16
    labels: np.ndarray  # (N, rows, columns) uint8
    positions: np.ndarray  # (N, 3), center of each slice's first pixel
    row_cosine: np.ndarray  # (3,)
    column_cosine: np.ndarray  # (3,)
    pixel_spacing: tuple[float, float]  # between rows, between columns
    slice_step: np.ndarray  # (3,), from one slice to the next
    outside: np.ndarray | None  # (rows, columns) bool, beyond the reconstruction circle


def phantom_case(seed: int, index: int, *, size: int = 144) -> PhantomCase:
    """Make patient `index` (from 0) of the study with this seed.

    `size` is the usual number of columns; patients differ from it by up to a ninth.
    """
    rng = np.random.default_rng([seed, index])
    plan = PLANS[index % len(PLANS)]
    phase = PHASES[(index + index // 3) % 3]
    anatomy = Anatomy(rng, phase, plan.absent)

    columns = round(size * float(rng.choice([8, 9, 10])) / 9 / 2) * 2
    across = min(400.0, max(320.0, 2 * anatomy.size[0] + rng.uniform(16, 64)))
    rows = round(columns * 0.8 / 2) * 2 if "wide" in plan.traits else columns
    spacing = float(np.round(across / columns, 3))
    count, thickness = int(rng.integers(20, 33)), float(rng.choice([4, 4.5, 5, 5.5, 6]))
    if count * thickness < 110:
        count = int(np.ceil(110 / thickness))

    row_cosine, column_cosine, step = np.eye(3)[0], np.eye(3)[1], np.array([0, 0, thickness])
    if "oblique" in plan.traits:
        turn = rotation_matrix(np.radians(rng.choice([-1, 1], 3) * rng.uniform([6, 4, 5], [14, 10, 12])))
        row_cosine, column_cosine = turn[:, 0], turn[:, 1]
        step = thickness * turn[:, 2]
    if "tilted" in plan.traits:  # the plane leans, the table still moves along z
        angle = np.radians(rng.choice([-1, 1]) * rng.uniform(8, 16))
        column_cosine = np.array([0, np.cos(angle), np.sin(angle)])
    row_cosine, column_cosine, step = (np.round(v, 8) for v in (row_cosine, column_cosine, step))
    if "reversed" in plan.traits:
        step = -step
    # Between the body and the edge of the field of view.
    room = np.maximum(0, np.array([columns, rows]) * spacing / 2 - anatomy.size)
    off_center = 0.6 * room * rng.uniform(-1, 1, 2)
    middle = np.array([*off_center, rng.uniform(-40, 36)])  # of the scan, in the anatomy
    lie = rotation_matrix(np.radians(rng.uniform([-6, -5, -14], [6, 5, 14])))  # how the patient lies
    table = np.array([rng.uniform(-20, 20), rng.uniform(-180, -120), rng.uniform(-1500, 1500)]).round(1)
    first = -(columns - 1) / 2 * spacing * row_cosine - (rows - 1) / 2 * spacing * column_cosine
    positions = np.round(first - (count - 1) / 2 * step + np.arange(count)[:, None] * step, 4)

    voxels = np.indices((count, rows, columns), dtype=np.float32)
    vectors = (step, spacing * column_cosine, spacing * row_cosine)
    local = [
        sum(np.float32(vector[axis]) * index for vector, index in zip(vectors, voxels, strict=True))
        + np.float32(positions[0][axis])
        for axis in range(3)
    ]
    x, y, z = (
        np.ravel(sum(np.float32(lie[row, axis]) * local[axis] for axis in range(3))) + np.float32(middle[row])
        for row in range(3)
    )
    hu, labels = anatomy.render((x, y, z), blend=1.1 * spacing)
    hu = add_scanner(hu.reshape(count, rows, columns), rng, streak=rng.random() < 0.2)
    outside = None
    if "circle" in plan.traits:
        y, x = np.indices((rows, columns))
        outside = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2) > columns / 2
    return PhantomCase(
        plan=plan,
        phase=phase,
        hu=hu,
        labels=labels.reshape(hu.shape),
        positions=np.round(positions + table, 4),
        row_cosine=row_cosine,
        column_cosine=column_cosine,
        pixel_spacing=(spacing, spacing),
        slice_step=step,
        outside=outside,
    )

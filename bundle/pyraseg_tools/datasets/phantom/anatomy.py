# SPDX-License-Identifier: Apache-2.0
"""One random upper abdomen, as a function of points in the patient's millimeters.

Axes are those of DICOM (PS3.3 C.7.6.2.1.1): x to the patient's left, y to the back, z to the head; the origin lies in
the middle of the trunk at about the first lumbar vertebra. Organs are painted from the outside in, and what is painted
later lies in front. Organs that must not touch are carved: a distance is cut by another one, less a gap of fat.
"""

from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import numpy as np

from bundle.pyraseg_tools.datasets.phantom.intensity import draw_tissues
from bundle.pyraseg_tools.datasets.phantom.shapes import (
    Canvas,
    Points,
    Waves,
    capsule,
    ellipsoid,
    rotation_matrix,
    smooth_union,
)

LABELS = {1: "liver", 2: "lesion", 3: "spleen", 4: "kidney"}
LIVER, LESION, SPLEEN, KIDNEY = LABELS


@dataclass(frozen=True)
class Absent:
    """What this patient lacks."""

    lesion: bool = False
    spleen: bool = False
    right_kidney: bool = False
    left_kidney: bool = False


class Anatomy:
    """A patient: draw everything at once, then `render` at any points."""

    def __init__(self, rng: np.random.Generator, phase: str, absent: Absent) -> None:
        """Draw the body and its organs from `rng`, with the HU of a contrast `phase`."""
        self.rng, self.absent = rng, absent
        self.hu = draw_tissues(rng, phase)
        self.arterial = phase == "arterial"
        self.cavity = (rng.uniform(110, 145), rng.uniform(76, 106))  # half-widths of the abdominal cavity
        self.muscle = rng.uniform(8, 13)
        self.fat = rng.uniform(5, 40)
        self.belly = rng.uniform(0, 0.5) * self.fat
        self.size = (self.cavity[0] + self.muscle + self.fat, self.cavity[1] + self.muscle + self.fat + 10)
        self.warp = [Waves.draw(rng, (110, 260)) for _ in range(3)]
        self.dome_right = rng.uniform(46, 92)
        self.dome_left = self.dome_right - rng.uniform(4, 22)

    def render(self, points: Points, blend: float) -> tuple[np.ndarray, np.ndarray]:
        """Return HU (float32) and labels (uint8) at flat arrays of patient coordinates (mm).

        `blend` is the width of an edge in mm. The rest of the random draws happen here, in a fixed order, some of them
        from the points (a lesion sits on a voxel of the liver): call it once for a patient.
        """
        offsets = [np.float32(amplitude) * wave(points) for amplitude, wave in zip((5, 5, 6), self.warp, strict=True)]
        canvas = Canvas((points[0] + offsets[0], points[1] + offsets[1], points[2] + offsets[2]), blend)
        self._paint_table(canvas, points)
        self._paint_trunk(canvas)
        self._paint_spine(canvas)
        shapes = self._shape_organs(canvas)
        self._paint_bowel(canvas, shapes)
        self._paint_stomach(canvas, shapes)
        self._paint_vessels(canvas)
        self._paint_kidneys(canvas, shapes)
        self._paint_spleen(canvas, shapes)
        self._paint_liver(canvas, shapes)
        self._paint_chest(canvas)
        return canvas.hu, canvas.labels

    def _paint_table(self, canvas: Canvas, points: Points) -> None:
        x, y, _ = points
        surface = np.float32(self.size[1] + 14) - x * x / np.float32(900)  # a shallow trough under the patient
        inside = np.maximum(np.abs(y - surface - 9) - 9, np.abs(x) - 190)
        canvas.paint(inside, -830)
        canvas.paint(np.maximum(np.abs(inside + 1) - 1.2, np.abs(x) - 190), -300)

    def _paint_trunk(self, canvas: Canvas) -> None:
        x, y, z = canvas.points
        width, depth = self.cavity
        taper = 1 + np.float32(self.rng.uniform(-6e-4, 6e-4)) * z
        flat = (x / taper, y / taper, np.zeros_like(z))
        tall = 1e4

        def oval(grow: float, back: float, front: float = 0) -> np.ndarray:
            """Widen the cavity by `grow` all round, and further by 2 `back` and 2 `front` mm at the back and front."""
            return ellipsoid(flat, (0, back - front, 0), (width + grow, depth + grow + back + front, tall))

        self.inner = oval(0, 0)
        wall = oval(self.muscle, 10)
        fold = 3 * Waves.draw(self.rng, (60, 140))(canvas.points) if self.fat > 15 else 0
        body = oval(self.muscle + self.fat, 10, self.belly) + fold
        canvas.paint(body, 5)
        canvas.paint(body + 2.2, self.hu.fat)
        canvas.paint(wall, self.hu.muscle + 4 * Waves.draw(self.rng, (15, 40))(canvas.points))
        canvas.paint(np.abs(wall + self.muscle * 0.45) - 0.9, self.hu.fat * 0.5)  # fat between the layers of muscle
        ascites = self.rng.random() < 0.1
        canvas.paint(self.inner, self.hu.effusion if ascites else self.hu.fat)
        self._paint_ribs(canvas, wall)

    def _paint_ribs(self, canvas: Canvas, wall: np.ndarray) -> None:
        x, y, z = canvas.points
        from_back = np.arctan2(np.abs(x), y)  # 0 at the spine, pi at the front
        pitch, start = self.rng.uniform(25, 31), self.rng.uniform(-10, 18)
        across = wall + np.float32(self.muscle * 0.6)
        fall = z + np.float32(38) * from_back  # a rib sinks on its way to the front
        for number in range(5):
            front = np.float32(1.35 + 0.28 * number)  # the upper ribs reach further round
            along = (fall - np.float32(start + pitch * number)) / np.float32(1.5)
            rib = np.maximum(np.hypot(across, along) - 4.2, 40 * np.maximum(from_back - front, 0.35 - from_back))
            canvas.paint(rib, 420)
            canvas.paint(rib + 2.2, 190)

    def _paint_spine(self, canvas: Canvas) -> None:
        rng, back = self.rng, self.cavity[1] - 20
        where = canvas.near((0, back + 20, 0), (75, 75, 1e4))
        points = canvas.at(where)
        x, y, z = points
        tall = 1e4
        for side in (-1, 1):  # psoas grows downwards
            psoas = capsule(points, (26 * side, back + 2, 40), (44 * side, back - 6, -110), 4, rng.uniform(18, 25))
            canvas.paint(psoas, self.hu.muscle, where=where)
            canvas.paint(ellipsoid(points, (30 * side, back + 38, 0), (24, 17, tall)), self.hu.muscle + 3, where=where)
        pitch, offset = rng.uniform(34, 39), rng.uniform(0, 36)
        disc = np.abs((z + offset) % np.float32(pitch) - np.float32(pitch / 2)) - np.float32(pitch / 2 - 4)
        vertebra = ellipsoid(points, (0, back, 0), (rng.uniform(20, 25), rng.uniform(16, 20), tall))
        canvas.paint(vertebra, 85, where=where)
        canvas.paint(np.maximum(vertebra, disc), 480, where=where)
        texture = 165 + 25 * Waves.draw(rng, (8, 16))(points)
        canvas.paint(np.maximum(vertebra, disc) + 2.5, texture, where=where)
        arch = np.maximum(ellipsoid(points, (0, back + 24, 0), (19, 15, tall)), disc)
        canvas.paint(arch, 420, where=where)
        spike = np.maximum(np.maximum(np.abs(x) - 3, np.abs(y - np.float32(back + 47)) - 14), disc + 7)
        canvas.paint(spike, 380, where=where)
        bar = np.maximum(np.maximum(np.abs(y - np.float32(back + 26)) - 4, np.abs(x) - 38), disc + 11)
        canvas.paint(bar, 330, where=where)
        canvas.paint(ellipsoid(points, (0, back + 24, 0), (10, 8, tall)), 20, where=where)
        canvas.paint(ellipsoid(points, (0, back + 24, 0), (6, 5, tall)), 38, where=where)

    def _dome(self, points: Points) -> np.ndarray:
        """Return the height (mm) of the diaphragm above each point."""
        x, y, _ = points
        width, depth = self.cavity
        right = self.dome_right - 62 * (((x + 0.48 * width) / (0.62 * width)) ** 2 + ((y + 5) / depth) ** 2)
        left = self.dome_left - 62 * (((x - 0.5 * width) / (0.6 * width)) ** 2 + ((y + 5) / depth) ** 2)
        return smooth_union(-right, -left, 30) * -1

    def _shape_organs(self, canvas: Canvas) -> SimpleNamespace:
        """Return the distances of the organs that are carved by each other, everywhere."""
        rng, points = self.rng, canvas.points
        width, depth = self.cavity
        wobble = [Waves.draw(rng, (45, 110))(points) for _ in range(3)]
        below = (points[2] - self._dome(points)) * np.float32(0.7) + 3  # under the diaphragm
        inside = np.maximum(self.inner + 2.5, below)
        side = SimpleNamespace(right=-1, left=1)
        kidneys = {}
        for name, sign in vars(side).items():
            z = rng.uniform(-48, -10) + (8 if sign > 0 else -8)
            center = (sign * (0.28 * width + rng.uniform(18, 30)), 0.42 * depth + rng.uniform(-3, 8), z)
            tilt = rotation_matrix(np.radians([rng.uniform(-15, 5), sign * rng.uniform(5, 20), sign * 35]))
            radii = (rng.uniform(22, 28), rng.uniform(24, 30), rng.uniform(46, 60))
            kidney = ellipsoid(points, center, radii, tilt.T) + 1.2 * wobble[2]
            absent = self.absent.left_kidney if sign > 0 else self.absent.right_kidney
            kidneys[name] = SimpleNamespace(
                distance=np.maximum(kidney, inside + 2), center=center, tilt=tilt, absent=absent, sign=sign
            )
        spine = ellipsoid(points, (0, depth - 14, 0), (46, 44, 1e4))
        beds = np.minimum.reduce([np.where(k.absent, 1e3, k.distance - 4) for k in kidneys.values()])
        beds = np.minimum(beds, spine)

        scale = rng.uniform(0.6, 1.1)
        reach = rng.uniform(0.1, 1.35)  # of the left lobe, up to the spleen
        tip = rng.uniform(40, 105)  # of the right lobe, downwards
        right = ellipsoid(
            points,
            (-rng.uniform(0.48, 0.66) * width, rng.uniform(-0.2, 0.15) * depth, 10),
            (0.56 * width * scale, 0.86 * depth * scale * rng.uniform(0.85, 1.1), tip),
            rotation_matrix(np.radians(rng.uniform(-14, 14, 3))),
        )
        left = ellipsoid(
            points,
            (-0.3 * width + 0.42 * width * reach, -0.5 * depth, 22 + rng.uniform(-12, 12)),
            (0.3 * width + 0.36 * width * reach, 0.36 * depth * scale, rng.uniform(34, 50)),
            rotation_matrix(np.radians([rng.uniform(-12, 12), rng.uniform(-18, 4), rng.uniform(-8, 8)])),
        )
        liver = smooth_union(right, left, 18) + np.float32(4.5) * wobble[0]
        liver = np.maximum(np.maximum(liver, inside), -beds)
        hilum = capsule(points, (6, 0, -12), (-0.26 * width, -2, 2), 13, 8)
        bladder = (-0.3 * width, -0.42 * depth, rng.uniform(-42, -18))
        self.bladder = (bladder, (rng.uniform(11, 17), rng.uniform(13, 19), rng.uniform(20, 32)))
        liver = np.maximum(liver, -np.minimum(hilum, ellipsoid(points, *self.bladder) - 1.5))

        grow = rng.uniform(0.85, 1.3)
        center = (0.68 * width, 0.36 * depth + rng.uniform(-14, 10), 22 + rng.uniform(-20, 18))
        spleen = ellipsoid(
            points,
            center,
            (27 * grow, 48 * grow, 48 * grow),
            rotation_matrix(np.radians([rng.uniform(-15, 15), rng.uniform(-12, 12), 28 + rng.uniform(-14, 14)])),
        )
        spleen = np.maximum(np.maximum(spleen + 3 * wobble[1], inside), -np.minimum(beds, liver - 2))
        dent = ellipsoid(points, (center[0] - 38 * grow, center[1] - 8, center[2]), (20 * grow, 26 * grow, 26 * grow))
        spleen = np.maximum(spleen, -dent)
        return SimpleNamespace(liver=liver, spleen=spleen, kidneys=kidneys, inside=inside, spleen_center=center)

    def _paint_bowel(self, canvas: Canvas, shapes: SimpleNamespace) -> None:
        """Fill the front and the lower half with loops, some of which look just like an organ in HU."""
        rng = self.rng
        width, depth = self.cavity
        for number in range(int(rng.integers(30, 46))):
            colon = number < 12  # wide loops first: the others lie in front of them
            across = rng.uniform(-0.95, -0.2) if number < 6 else rng.uniform(-0.9, 0.9)  # some under the liver
            start = np.array([across * width, rng.uniform(-0.9, 0.35) * depth, rng.uniform(-85, 30)])
            end = start + rng.normal(0, (26, 16, 30 if colon else 16))
            radius = rng.uniform(18, 32) if colon else rng.uniform(9, 17)
            where = canvas.near(tuple((start + end) / 2), tuple(np.abs(end - start) / 2 + radius * 1.2 + 6))
            points = canvas.at(where)
            loop = np.maximum(capsule(points, start, end, radius, radius * rng.uniform(0.8, 1.2)), shapes.inside[where])
            canvas.paint(loop, self.hu.wall, where=where)
            kind = rng.random()
            if kind < 0.7:  # content as dense as an organ
                content = (self.hu.liver if rng.random() < 0.65 else self.hu.spleen) + rng.uniform(-10, 10)
            elif kind < 0.85:
                content = rng.uniform(0, 45)
            else:  # oral contrast
                content = rng.uniform(130, 330)
            lumps = rng.uniform(0, 14) * Waves.draw(rng, (9, 22))(points)
            canvas.paint(loop + 2.5, content + lumps, where=where)
            if rng.random() < 0.25:  # gas rises to the front
                gas = np.maximum(loop + 2.5, points[1] - np.float32(start[1] - 0.3 * radius))
                canvas.paint(gas, -850, where=where)
        pancreas_z = rng.uniform(-15, 5)
        bends = [(-34, -8, pancreas_z - 16), (-8, -14, pancreas_z), (36, 0, pancreas_z + 10), (70, 14, pancreas_z + 20)]
        for start, end in pairwise(bends):
            part = capsule(canvas.points, start, end, 11, 9) + 1.5 * Waves.draw(rng, (12, 25))(canvas.points)
            canvas.paint(np.maximum(part, shapes.inside), self.hu.pancreas)

    def _paint_stomach(self, canvas: Canvas, shapes: SimpleNamespace) -> None:
        """Paint a distractor as large as the spleen and beside it."""
        rng = self.rng
        width, depth = self.cavity
        fill = rng.uniform(0.65, 1.15)
        points = canvas.points
        fundus = ellipsoid(
            points,
            (0.5 * width, -0.12 * depth, 34),
            (40 * fill, 44 * fill, 42),
            rotation_matrix(rng.normal(0, 0.25, 3)),
        )
        body = capsule(points, (0.42 * width, -0.45 * depth, 12), (-4, -0.5 * depth, -30), 30 * fill, 15)
        gap = 1.5
        stomach = smooth_union(fundus, body, 20) + 2 * Waves.draw(rng, (40, 80))(points)
        stomach = np.maximum(np.maximum(stomach, shapes.inside), gap - shapes.liver)
        if not self.absent.spleen:
            stomach = np.maximum(stomach, gap - shapes.spleen)
        canvas.paint(stomach, self.hu.wall + 8)
        kind = rng.random()
        if kind < 0.5:
            content = self.hu.spleen + rng.uniform(-12, 8)
        elif kind < 0.8:
            content = rng.uniform(0, 40)
        else:
            content = rng.uniform(140, 280)
        lumps = Waves.draw(rng, (12, 30))(points) * np.float32(rng.uniform(0, 9))
        canvas.paint(stomach + 4, content + lumps)
        level = np.float32(rng.uniform(-0.75, -0.3) * depth)
        canvas.paint(np.maximum(stomach + 4, points[1] - level), -920)

    def _paint_vessels(self, canvas: Canvas) -> None:
        rng, back = self.rng, self.cavity[1] - 20
        radius = rng.uniform(9, 13)
        where = canvas.near((0, back - 25, 0), (60, 45, 1e4))
        points = canvas.at(where)
        sway = rng.uniform(4, 14)
        canvas.paint(capsule(points, (sway, back - 30, 120), (sway - 4, back - 30, -140), radius, radius * 0.85),
                     self.hu.aorta, where=where)  # fmt: skip
        cava = ellipsoid(points, (-20, back - 27, 0), (13, rng.uniform(8, 12), 1e4))
        canvas.paint(cava, self.hu.vena_cava, where=where)
        canvas.paint(capsule(points, (-2, back - 44, -90), (-6, back - 50, -8), 6, 7), self.hu.portal_vein, where=where)
        canvas.paint(capsule(points, (sway, back - 46, -90), (sway, back - 40, -5), 4, 4), self.hu.aorta, where=where)

    def _paint_kidneys(self, canvas: Canvas, shapes: SimpleNamespace) -> None:
        rng = self.rng
        for kidney in shapes.kidneys.values():
            if kidney.absent:
                continue
            where = np.flatnonzero(kidney.distance < 3)
            points, distance = canvas.at(where), kidney.distance[where]
            canvas.paint(distance, self.hu.cortex, where=where, label=KIDNEY)
            canvas.paint(distance + 7, self.hu.medulla, where=where, label=None)
            inward = kidney.tilt @ np.array([-kidney.sign * 15, -4, 0])
            hilum = tuple(np.add(kidney.center, inward))
            sinus = ellipsoid(points, hilum, (12, 9, rng.uniform(18, 26)), kidney.tilt.T)
            canvas.paint(np.maximum(sinus, distance), self.hu.fat + 15, where=where, label=0)
            pelvis = capsule(points, hilum, tuple(np.add(hilum, (-kidney.sign * 18, -6, -14))), 4.5, 4)
            canvas.paint(np.maximum(pelvis, distance), 15, where=where, label=0)

    def _paint_spleen(self, canvas: Canvas, shapes: SimpleNamespace) -> None:
        if self.absent.spleen:
            return
        where = np.flatnonzero(shapes.spleen < 3)
        stripes = 14 if self.arterial else 2  # early enhancement is uneven
        texture = stripes * Waves.draw(self.rng, (14, 26))(canvas.at(where))
        canvas.paint(shapes.spleen[where], self.hu.spleen + texture, where=where, label=SPLEEN)

    def _paint_liver(self, canvas: Canvas, shapes: SimpleNamespace) -> None:
        rng, width = self.rng, self.cavity[0]
        canvas.paint(ellipsoid(canvas.points, *self.bladder), self.hu.bile)
        where = np.flatnonzero(shapes.liver < 3)
        points, liver = canvas.at(where), shapes.liver[where]
        texture = 2 * Waves.draw(rng, (20, 60))(points)
        canvas.paint(liver, self.hu.liver + texture, where=where, label=LIVER)
        root = (-20, self.cavity[1] - 46, 48)
        trees = [(self.hu.hepatic_vein, root, (x, y, rng.uniform(15, 50)), 5)
                 for x, y in ((-0.75 * width, 10), (-0.45 * width, -45), (-0.05 * width, -50))]  # fmt: skip
        porta = (-0.24 * width, 0, 2)
        trees.append((self.hu.portal_vein, (6, 2, -12), porta, 7))
        trees += [(self.hu.portal_vein, porta, (x, y, rng.uniform(-30, 35)), 5)
                  for x, y in ((-0.7 * width, 25), (-0.65 * width, -20), (0, -50))]  # fmt: skip
        for hu, start, end, radius in trees:
            vessel = capsule(points, start, end, radius, 2)
            canvas.paint(np.maximum(vessel, liver), hu, where=where, label=None)
        if not self.absent.lesion:
            self._paint_lesions(canvas, where, liver)

    def _paint_lesions(self, canvas: Canvas, where: np.ndarray, liver: np.ndarray) -> None:
        rng, points = self.rng, canvas.at(where)
        placed: list[tuple[np.ndarray, float]] = []
        for number in range(int(rng.integers(1, 5))):
            radius = rng.uniform(13, 20) if number == 0 else rng.uniform(8, 15)
            candidates = np.array([], int)
            while candidates.size == 0 and radius > 6:  # where there is no room, it shrinks, or is dropped
                free = liver < -np.float32(0.6 * radius)
                for center, other in placed:
                    apart = sum((p - c) ** 2 for p, c in zip(points, center, strict=True))
                    free &= apart > np.float32((radius + other + 5) ** 2)
                candidates = np.flatnonzero(free)
                radius *= 1 if candidates.size else 0.85
            if candidates.size == 0:
                continue
            chosen = candidates[int(rng.integers(candidates.size))]
            center = np.array([p[chosen] for p in points])
            placed.append((center, radius))
            radii = radius * rng.uniform(0.88, 1.12, 3)
            lesion = ellipsoid(points, tuple(center), tuple(radii)) + 1.2 * Waves.draw(rng, (14, 30))(points)
            contrast = self.hu.lesion_contrast * rng.uniform(0.9, 1.1)
            canvas.paint(np.maximum(lesion, liver), self.hu.liver + contrast, where=where, label=LESION)

    def _paint_chest(self, canvas: Canvas) -> None:
        """Paint the lung bases above the diaphragm, and the heart between them."""
        rng, points = self.rng, canvas.points
        x, y, z = points
        above = (self._dome(points) - z) * np.float32(0.7)
        where = np.flatnonzero(np.maximum(above, self.inner) < 3)
        if where.size == 0:
            return
        near = canvas.at(where)
        middle = np.float32(24) - np.abs(x[where] + 4) + 0.25 * np.maximum(y[where] - 20, 0)
        lung = np.maximum(np.maximum(above[where], self.inner[where] + 1.5), middle)
        texture = np.maximum(Waves.draw(rng, (14, 30), 6)(near) - 1.5, 0) * 500
        canvas.paint(lung, -860 + texture, where=where)
        if rng.random() < 0.35:  # fluid around the lung, on its way up along the back
            level = y[where] + 0.6 * z[where] - np.float32(rng.uniform(0.3, 1.0) * self.cavity[1])
            fluid = np.maximum(np.maximum(lung, -level), np.float32(rng.choice([-1, 1])) * x[where])
            canvas.paint(fluid, self.hu.effusion, where=where)
        heart = ellipsoid(near, (18, -0.35 * self.cavity[1], self.dome_right + 38), (62, 46, 46))
        canvas.paint(np.maximum(heart, above[where]), self.hu.muscle + 20, where=where)
        canvas.paint(np.maximum(heart, above[where]) + 9, self.hu.blood, where=where)

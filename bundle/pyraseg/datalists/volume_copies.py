# SPDX-License-Identifier: Apache-2.0
"""Find volumes that are copies of one another, also among volumes that are all framed alike.

Heads in one frame are alike whoever they are of. So every volume is described by small blocks around its most prominent
spots, and each block looks for its like in all others: strangers share such blocks out among themselves, a copy takes
most of them. Where the blocks of two volumes agree on how one lies in the other (mirrored, shifted, cut out, scaled),
the two are compared voxel by voxel, and what they share with the set, its mean laid onto both, is taken out.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from scipy.ndimage import affine_transform, gaussian_filter, maximum_filter

#: Voxels along each edge of the cube to which a volume is reduced, and at most in the frame of millimeters.
SIZE, LONGEST = 48, 96
#: Correlation of what two volumes do not share with the set, from which on they are copies.
RESIDUAL = 0.5
#: The same where one has to be stretched first: that brings the outlines of strangers together, too.
RESIDUAL_STRETCHED = 0.65
#: By how much less it may be of two that stand apart from all others so far: a window took much of the detail.
_LESS, _APART = -0.15, 0.15
_SPOTS, _CELLS = 80, 3  # of a volume, and cells along each edge that they are taken from in turn
_REACH, _STRIDE = 2, 3  # of a block: 5 voxels along each edge, three voxels apart
_FINE, _COARSE = 1.5, 4.0  # blurs, in voxels, between which detail lies
_FLAT = 4.0  # of 255 gray levels: contrast that is noise of a flat region
_LIKE = 0.5  # of blocks, from which on they may be the same
_VOTES = 8  # of blocks for one volume, where the set is large
_FEWEST = 4  # blocks that agree
_PARTNERS = 6  # of a volume, that are looked at
_OTHERS = 8  # volumes that stand for the set
_ALSO = 0.05  # by which the correlation may be lower where a pair fits in both frames, or of a third copy of a pair
_SAME = 0.85  # a correlation that a set of strangers in one frame does not have throughout
_SCALED = 0.12  # by which the correlation must rise for a copy to count as stretched
_WORTH = 0.65  # a correlation from which on a better place is looked for
_OVERLAP = 0.1  # of the smaller volume


class Reduced(NamedTuple):
    """A volume as ranks of its intensities, (SIZE, SIZE, SIZE) uint8, its edges along R, A and S, and those in mm."""

    levels: np.ndarray
    extent: np.ndarray


class Likeness(NamedTuple):
    """Correlation of two volumes, of what the set does not share with them, and how much of the latter copies need."""

    correlation: float
    residual: float
    needed: float

    @property
    def excess(self) -> float:
        return self.residual - self.needed


class Placement(NamedTuple):
    """Where the voxel x of a volume lies in another: at `turn * x + shift`; `turn` holds signs and scales."""

    turn: np.ndarray
    shift: np.ndarray


def reduce_volume(values: np.ndarray, affine: np.ndarray) -> Reduced:
    """Return a volume (W, H, D) of any size, orientation and units in few voxels."""
    orientation = io_orientation(affine)
    sizes = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))
    turned = apply_orientation(values, orientation)
    order = np.argsort(orientation[:, 0])
    extent = (np.array(values.shape) * sizes)[order]
    small = _resize(np.asarray(turned, np.float32), (SIZE,) * 3)
    ranked = np.sort(small, axis=None)
    middle = (np.searchsorted(ranked, small, "left") + np.searchsorted(ranked, small, "right")) / 2
    return Reduced(np.round(middle / small.size * 255).astype(np.uint8), extent)


def alike_volumes(volumes: Sequence[Reduced], threshold: float) -> dict[tuple[int, int], Likeness]:
    """Return the pairs of volumes, by their indices, that correlate where one lies in the other: copies and others.

    They are searched twice: all edges taken as equally long, which finds copies on another grid whatever their header
    says, and in millimeters, which finds parts of a volume.

    Args:
        volumes: all of a set.
        threshold: correlation that pairs have at least. `copies_among` tells which of them are copies.
    """
    if len(volumes) < 2:
        return {}
    longest = max(float(np.median([volume.extent.max() for volume in volumes])), 1e-6)
    cubes = [(SIZE,) * 3] * len(volumes)
    scaled = [tuple(np.clip(np.rint(v.extent * SIZE / longest), 8, LONGEST).astype(int).tolist()) for v in volumes]
    frames = [_Frame(volumes, shapes) for shapes in ([cubes] if scaled == cubes else [cubes, scaled])]
    alike = {}
    for pair in sorted({pair for frame in frames for pair in frame.candidates()}):
        scores = [frame.score(*pair)[0] for frame in frames]
        bar = max(threshold, max(scores) - _ALSO)
        fitting = [frame for frame, score in zip(frames, scores, strict=True) if score >= bar]
        if fitting:
            likeness = (Likeness(max(scores), frame.residual(*pair), frame.needed(*pair)) for frame in fitting)
            alike[pair] = min(likeness, key=lambda each: each.excess)
    return alike


def copies_among(alike: dict[tuple[int, int], Likeness]) -> dict[tuple[int, int], Likeness]:
    """Return the pairs of a set that are copies: they share much, or something that neither shares with others."""
    return {pair: likeness for pair, likeness in alike.items() if _stands_out(pair, alike)}


def _stands_out(pair: tuple[int, int], alike: dict[tuple[int, int], Likeness]) -> bool:
    excess = alike[pair].excess
    if excess >= 0:
        return True
    others = [likeness.excess for other, likeness in alike.items() if other != pair and {*other} & {*pair}]
    return excess >= _LESS and excess - max((other for other in others if other < 0), default=-1.0) >= _APART


class _Frame:
    """Volumes on grids of shapes of their own, with their spots, and how they lie in one another."""

    def __init__(self, volumes: Sequence[Reduced], shapes: Sequence[tuple[int, ...]]) -> None:
        self.levels = [volume.levels for volume in volumes]
        self.shapes = shapes
        self.detail = lru_cache(128)(self._detail)
        self.place = cache(self._place)
        self.score = lru_cache(16)(self._score)
        self.spots = [_spots(self._detail(index)[0]) for index in range(len(volumes))]

    def candidates(self) -> list[tuple[int, int]]:
        """Return the pairs of volumes that have more of their blocks in common than any two of the set.

        Each block votes for the volumes that are most like it, wherever in them.
        """
        count = len(self.spots)
        blocks = np.zeros((count, _SPOTS, (2 * _REACH + 1) ** 3), np.float32)
        for index, (_, _, own) in enumerate(self.spots):
            blocks[index, : len(own)] = own
        flat = blocks.reshape(count * _SPOTS, -1)
        chosen = min(_PARTNERS, count - 1)
        enough = min(max(_VOTES, 2 * _SPOTS * chosen / (count - 1)), _SPOTS / 2)
        pairs = set()
        for index, (places, _, own) in enumerate(self.spots):
            if len(places) < _FEWEST:
                continue
            nearest = np.abs(own @ flat.T).reshape(len(own), count, _SPOTS).max(axis=2)
            nearest[:, index] = 0
            best = np.argpartition(-nearest, chosen - 1, axis=1)[:, :chosen]
            alike = np.take_along_axis(nearest, best, axis=1) >= _LIKE
            votes = np.bincount(best[alike], minlength=count)
            partners = np.argsort(-votes, kind="stable")[:_PARTNERS]
            if count > 2 * _PARTNERS:
                partners = partners[votes[partners] >= enough * len(own) / _SPOTS]
            pairs |= {(min(index, int(other)), max(index, int(other))) for other in partners if votes[other] >= _FEWEST}
        return sorted(pairs)

    def _score(self, first: int, second: int) -> tuple[float, np.ndarray, np.ndarray, Placement | None]:
        """Return the correlation of two volumes, the second where it lies in the first, where both have detail, where.

        0 where their spots do not agree on a place.
        """
        own, seen = self.detail(first)
        place = self.place(first, second)
        if place is None:
            return 0.0, own, seen, None
        detail, there = self.detail(second)
        middle = (np.array(detail.shape) - 1) / 2
        turn = np.sign(place.turn)
        unscaled = Placement(turn, place.shift + (place.turn - turn) * middle)  # what few spots say of scales is vague
        best = (*_compared(own, seen, detail, there, _whole(unscaled)), _whole(unscaled))
        scaled = (*_compared(own, seen, detail, there, place), place)
        if scaled[0] > best[0] + _SCALED:  # strangers fit better, too, where they may be stretched
            best = scaled
        if best[0] < _WORTH:
            return best
        for axis in np.eye(3):
            steps = [Placement(best[3].turn, best[3].shift + step * axis) for step in (-0.5, 0.5)]
            tried = [(*_compared(own, seen, detail, there, way), way) for way in steps]
            best = max(best, *tried, key=lambda trial: trial[0])
        return best

    def needed(self, first: int, second: int) -> float:
        """Return the residual correlation that two volumes have if they are copies."""
        place = self.score(first, second)[3]
        stretched = place is not None and (np.abs(place.turn) != 1).any()
        return RESIDUAL_STRETCHED if stretched else RESIDUAL

    def residual(self, first: int, second: int) -> float:
        """Return the correlation of two volumes that is left when what they share with others of the set is taken out.

        The others are laid onto the first volume as it lies itself, as the second lies in it, or as their spots say:
        as they fit best.
        """
        correlation, moved, valid, place = self.score(first, second)
        assert place is not None  # else their score is 0, and nobody asks
        own, seen = self.detail(first)
        likeness, others, copied = [], [], []
        chosen = np.random.default_rng(0).permutation(len(self.shapes)).tolist()
        for index in [index for index in chosen if index not in (first, second)][:_OTHERS]:
            here, there = _centered(self.shapes[index], own.shape), _centered(self.shapes[index], self.shapes[second])
            as_second = Placement(place.turn * there.turn, place.turn * there.shift + place.shift)
            ways = [_whole(way) for way in (here, as_second, self.place(first, index)) if way is not None]
            different = {(*way.turn, *way.shift): way for way in ways}.values()
            best = max(
                (_compared(own, seen, *self.detail(index), way) for way in different), key=lambda trial: trial[0]
            )
            other = best[1][valid]
            likeness.append(best[0])
            others.append(other)
            copied.append(min(best[0], abs(_correlation(moved[valid], other))) >= max(correlation - _ALSO, _SAME))
        # A third copy of the two is no stranger: it stands out among the others, or all three are equally alike.
        usual = np.quantile(likeness, 0.4, method="lower") if likeness else 0.0
        strangers = [
            other
            for like, other, copy in zip(likeness, others, copied, strict=True)
            if not copy and like - usual < 0.5 * (1 - usual)
        ]
        return _partial(own[valid], moved[valid], np.stack(strangers) if strangers else None)

    def _detail(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        levels = self.levels[index].astype(np.float32)
        return _detail(levels if levels.shape == self.shapes[index] else _resize(levels, self.shapes[index]))

    def _place(self, first: int, second: int) -> Placement | None:
        return _place(self.spots[first], self.spots[second])


def _resize(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return values on a grid of another shape and the same extent, averaged over each new voxel."""
    for axis, wanted in enumerate(shape):
        if values.shape[axis] != wanted:
            values = np.moveaxis(_averaged(np.moveaxis(values, axis, 0), wanted), 0, axis)
    return values.astype(np.float32)


def _averaged(planes: np.ndarray, wanted: int) -> np.ndarray:
    """Return as many planes (wanted, ...) float64 of the same extent as `planes` (N, ...).

    It takes the memory of what it returns and of some planes, however many there are.
    """
    size = len(planes)
    averaged = np.empty((wanted, *planes.shape[1:]))
    before = np.zeros(planes.shape[1:])  # sum of the planes before `index`
    index, last = 0, before
    for number, edge in enumerate(np.linspace(0, size, wanted + 1)):
        while index < min(int(edge), size - 1):
            before += planes[index]
            index += 1
        part = edge - index
        until = before * (1 - part) + (before + planes[index]) * part
        if number > 0:
            averaged[number - 1] = (until - last) * (wanted / size)
        last = until
    return averaged


def _detail(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lines, edges and spots of gray levels, of about unit contrast everywhere, and where there are any."""
    detail = gaussian_filter(levels, _FINE, mode="nearest") - gaussian_filter(levels, _COARSE, mode="nearest")
    contrast = np.sqrt(gaussian_filter(detail**2, 1.5 * _COARSE, mode="nearest"))
    return detail / (contrast + _FLAT), gaussian_filter(detail**2, 1.5, mode="nearest") > 1


def _spots(detail: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the most prominent spots of a volume: their places (K, 3), how each is turned (K, 3), blocks (K, 125).

    Each block is mirrored so that its first moment along every axis has the sign of its center: a mirrored or inverted
    volume has the same blocks. A turn of -1 stands for mirrored.
    """
    smooth = gaussian_filter(detail, 1.0)
    prominent = np.abs(smooth)
    peaks = (maximum_filter(prominent, 5) == prominent) & (prominent > 0.15)
    inside = np.zeros_like(peaks)
    inside[1:-1, 1:-1, 1:-1] = True
    places = np.argwhere(peaks & inside)
    places = places[np.argsort(-prominent[tuple(places.T)], kind="stable")]
    # From everywhere: noise of the air, which a window takes away, would be most of them.
    cells = (places * _CELLS // np.array(detail.shape)) @ (_CELLS ** np.arange(3))
    rank = np.array([(cells[:index] == cell).sum() for index, cell in enumerate(cells)], int)
    places = places[np.argsort(rank, kind="stable")[:_SPOTS]]
    smooth = np.pad(smooth, _REACH * _STRIDE)
    around = np.arange(2 * _REACH + 1) * _STRIDE
    x, y, z = (places[:, axis, None] + around for axis in range(3))
    blocks = smooth[x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]]
    turns = np.ones((len(places), 3))
    ramp = np.arange(-_REACH, _REACH + 1)
    for axis in range(3):
        moment = np.tensordot(np.moveaxis(blocks, axis + 1, -1), ramp, 1).sum(axis=(1, 2))
        mirrored = moment * blocks[:, _REACH, _REACH, _REACH] < 0
        blocks[mirrored] = np.flip(blocks[mirrored], axis + 1)
        turns[mirrored, axis] = -1
    flat = blocks.reshape(len(places), (2 * _REACH + 1) ** 3)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return places.astype(float), turns, (flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-9)).astype(np.float32)


def _place(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> Placement | None:
    """Return where a volume lies in another, by their spots; None if too few of these agree."""
    (places, turns, blocks), (other_places, other_turns, other_blocks) = first, second
    if min(len(places), len(other_places)) < _FEWEST:
        return None
    likeness = np.abs(blocks @ other_blocks.T)
    nearest = likeness.argmax(axis=1)
    like = np.flatnonzero(likeness.max(axis=1) >= _LIKE)
    if len(like) < _FEWEST:
        return None
    turn = turns[like] * other_turns[nearest[like]]
    target, source = places[like], turn * other_places[nearest[like]]
    shift = target - source
    agree = (turn[:, None] == turn).all(axis=2) & (np.abs(shift[:, None] - shift).max(axis=2) <= 3)
    most = agree.sum(axis=1).argmax()
    inside, scale = agree[most], np.ones(3)
    for _ in range(3):  # the more places agree, the better is known how large the one is in the other
        if inside.sum() < _FEWEST:
            return None
        x, y = source[inside], target[inside]
        spread = x.var(axis=0)
        slope = ((x - x.mean(axis=0)) * (y - y.mean(axis=0))).mean(axis=0) / np.maximum(spread, 1e-9)
        scale = np.where((spread > 16) & (inside.sum() > _FEWEST), slope.clip(0.8, 1.25), 1.0)
        scale[np.abs(scale - 1) < 0.035] = 1.0
        offset = (y - scale * x).mean(axis=0)
        inside = (turn == turn[most]).all(axis=1) & (np.abs(target - scale * source - offset).max(axis=1) <= 2)
    return Placement(scale * turn[most], offset) if inside.sum() >= _FEWEST else None


def _whole(place: Placement) -> Placement:
    """Return a place in whole voxels and without a scale, which is quickly gone to."""
    return Placement(np.sign(place.turn), np.rint(place.shift))


def _centered(shape: Sequence[int], onto: Sequence[int]) -> Placement:
    return Placement(np.ones(3), (np.array(onto) - np.array(shape)) / 2)


def _moved(values: np.ndarray, place: Placement, shape: tuple[int, ...]) -> np.ndarray:
    """Return values on the grid of the volume that they lie in; 0 outside."""
    if (np.abs(place.turn) == 1).all() and (place.shift == np.rint(place.shift)).all():
        moved = np.zeros(shape, values.dtype)
        mirrored = np.flip(values, tuple(np.flatnonzero(place.turn < 0).tolist()))
        starts = np.where(place.turn < 0, place.shift - np.array(values.shape) + 1, place.shift).astype(int)
        lows = np.maximum(starts, 0)
        highs = np.maximum(np.minimum(starts + values.shape, shape), lows)
        target = tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))
        moved[target] = mirrored[tuple(slice(s.start - at, s.stop - at) for s, at in zip(target, starts, strict=True))]
        return moved
    inverse = 1 / place.turn
    return affine_transform(values, inverse, -place.shift * inverse, shape, order=1 if values.dtype.kind == "f" else 0)


def _compared(
    own: np.ndarray, seen: np.ndarray, detail: np.ndarray, there: np.ndarray, place: Placement
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the correlation of two volumes, the second where it lies in the first, and where both have detail."""
    moved = _moved(detail, place, own.shape)
    valid = seen & _moved(there.view(np.uint8), place, own.shape).view(bool)
    if valid.sum() < _OVERLAP * min(seen.sum(), there.sum()):
        return 0.0, moved, valid
    return abs(_correlation(own[valid], moved[valid])), moved, valid


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-9))


def _partial(first: np.ndarray, second: np.ndarray, others: np.ndarray | None) -> float:
    """Return the correlation of two volumes (V,) beyond what K others (K, V) have in common with them.

    It is the partial correlation given the others: heads of one size, say, are made from others of that size. Volumes
    that share nothing else with each other have one of about 1 / (K + 1), because both miss the same error of what is
    common; this is taken to 0.
    """
    if others is None:
        return abs(_correlation(first, second))
    units = others / np.maximum(np.linalg.norm(others, axis=1, keepdims=True), 1e-9)
    both = np.stack([first, second])
    inverse = np.linalg.inv(units @ units.T + 1e-3 * np.eye(len(units)))
    left, other = both - (both @ units.T) @ inverse @ units
    partial = np.sign(_correlation(first, second)) * _correlation(left, other)
    return float((partial * (len(units) + 1) - 1) / len(units))

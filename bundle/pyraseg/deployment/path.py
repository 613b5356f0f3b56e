# SPDX-License-Identifier: Apache-2.0
"""The way of an image as ONNX operators: from raw pixels to the network, and from logits to labels.

Images are laid out as displayed, rows by columns; the networks of this bundle were trained on columns by rows, so the
last two axes are swapped in front of the network and behind it. Sizes are run-time values throughout, so that a graph
holds for every size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from bundle.pyraseg.core import THRESHOLD
from bundle.pyraseg.deployment.recipe import Decision, Recipe
from bundle.pyraseg.dicom import VoiWindow
from bundle.pyraseg.runtime import NO_CLASS

LAST = np.iinfo(np.int64).min  # where a slice with a negative step ends


class Operators:
    """Write operators: `op.Add(a, b)` adds a node and returns its output; numbers and arrays become constants.

    Args:
        name: what the names of values begin with, to tell them from those of other parts of a graph.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tape = Tape()
        self.count = 0

    def __getattr__(self, kind: str):
        def write(*inputs: object, **attributes: Any) -> ir.Value:
            return self.tape.op(kind, [self.value(item) for item in inputs], attributes=attributes, output=self._new())

        return write

    def value(self, item: object) -> ir.Value | None:
        """Return a graph's value for a value, an array, a number (float32, int64 if whole), or nothing."""
        if item is None or isinstance(item, ir.Value):
            return item
        array = np.asarray(item)
        if array.dtype == np.float64 and not isinstance(item, np.ndarray | np.generic):
            array = array.astype(np.float32)
        return self.tape.initializer(ir.tensor(array), name=self._new().name)

    def _new(self) -> ir.Value:
        self.count += 1
        return ir.Value(name=f"{self.name}_{self.count}")

    def size(self, x: ir.Value, axis: int) -> ir.Value:
        """Return the length of an axis, (1,) int64."""
        return self.Shape(x, start=axis, end=axis + 1)

    def to(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        return self.Cast(x, to=dtype.value)

    def shape(self, *sizes: ir.Value | int) -> ir.Value:
        """Return sizes, each (1,) int64 or a number, as one shape."""
        return self.Concat(*(size if isinstance(size, ir.Value) else [size] for size in sizes), axis=0)

    def flip(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Reverse the order along some axes."""
        return self.Slice(x, [-1] * len(axes), [LAST] * len(axes), list(axes), [-1] * len(axes))

    def shrinking_matrix(self, size: ir.Value, target: ir.Value) -> ir.Value:
        """Return the matrix of torch's antialiased linear resize along one axis, (target, size) float32.

        Row i holds a triangle around (i + 0.5) * scale, as wide as the pixels that it replaces and at least one pixel
        to either side, and sums to one. (ONNX has `antialias` in Resize; ONNX Runtime's differs from torch's by up to
        7 % of the value range.)

        Args:
            size, target: numbers of positions, (1,) int64.
        """
        float_size, float_target = (self.to(number, ir.DataType.FLOAT) for number in (size, target))
        scale = self.Div(float_size, float_target)
        center = self.Unsqueeze(self.Mul(self.Add(self._positions(target), 0.5), scale), [1])
        distance = self.Sub(self.Add(self._positions(size), 0.5), center)
        weight = self.Relu(self.Sub(1.0, self.Abs(self.Div(distance, self.Max(scale, 1.0)))))
        return self.Div(weight, self.ReduceSum(weight, [1], keepdims=1))

    def _positions(self, count: ir.Value) -> ir.Value:
        return self.to(self.Range(0, self.Squeeze(count, [0]), 1), ir.DataType.FLOAT)


#: Name, inside the graph of a path, of the logits on the grid of the network, averaged over mirror images.
LOGITS = "logits"
#: The least width of a window that is an input: with it, one of no width is a threshold.
LEAST_WIDTH = 1e-20


@dataclass(frozen=True)
class Inputs:
    """Hold the inputs of a graph; those that a kind of image does not need are None.

    Attributes:
        image: (batch, slices, height, width) float32 in rescaled units; of photographs (batch, height, width, 3) uint8.
        spacing: mm between rows and between columns, (2,) float64, of a volume.
        inverted: whether the smallest value is meant to be shown white, (batch,) bool.
        windows: black and white of the windows that are not fixed, (batch, slices, windows, 2) float32.
    """

    image: ir.Value
    spacing: ir.Value | None = None
    inverted: ir.Value | None = None
    windows: ir.Value | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> "Inputs":
        """Return the inputs that a recipe needs."""
        if recipe.image_kind == "photograph":
            return cls(_input("image", ir.DataType.UINT8, "batch", "height", "width", 3))
        free = len(recipe.free_windows)
        return cls(
            _input("image", ir.DataType.FLOAT, "batch", recipe.slices, "height", "width"),
            spacing=_input("spacing", ir.DataType.DOUBLE, 2) if recipe.spacing else None,
            inverted=_input("inverted", ir.DataType.BOOL, "batch"),
            windows=_input("windows", ir.DataType.FLOAT, "batch", recipe.slices, free, 2) if free else None,
        )

    def all(self) -> list[ir.Value]:
        """Return the inputs that there are."""
        return [value for value in (self.image, self.spacing, self.inverted, self.windows) if value is not None]


def _input(name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def before_network(op: Operators, recipe: Recipe, inputs: Inputs) -> ir.Value:
    """Return what the network is shown, (batch * (1 + flips), channels, columns, rows) float32."""
    image = _colors(op, recipe, inputs) if recipe.image_kind == "photograph" else _grays(op, recipe, inputs)
    image = op.Transpose(image, perm=[0, 1, 3, 2])
    if recipe.tta_flips:
        mirrored = [op.flip(image, [axis + 2 for axis in axes]) for axes in recipe.tta_flips]
        image = op.Concat(image, *mirrored, axis=0)
    return image


def after_network(
    op: Operators, recipe: Recipe, inputs: Inputs, logits: ir.Value, decision: Decision
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return what the bundle makes of logits, in its order: probabilities are resized, then softened, then judged.

    Returns:
        The classes, or label values of regions, (batch, height, width) uint8, `NO_CLASS` where the network's output is
        not finite, their probabilities (batch, classes, height, width), and the logits, (batch, classes, columns,
        rows), averaged over the mirror images.
    """
    if recipe.tta_flips:
        images = 1 + len(recipe.tta_flips)
        parts = op.tape.op_multi_out("Split", [logits], {"axis": 0, "num_outputs": images}, num_outputs=images)
        for number, part in enumerate(parts):
            part.name = f"{op.name}_view_{number}"
        mirrored = [
            op.flip(part, [a + 2 for a in axes]) for part, axes in zip(parts[1:], recipe.tta_flips, strict=True)
        ]
        logits = op.Div(op.Sum(parts[0], *mirrored), float(images))
    if recipe.regions:  # 0 times what is infinite is no number, and the sigmoid of that would be 0 or 1
        activated = op.Add(op.Sigmoid(logits), op.ReduceSum(op.Mul(logits, 0.0), [1], keepdims=1))
    else:
        activated = op.Softmax(logits, axis=1)
    probabilities = op.Transpose(activated, perm=[0, 1, 3, 2])
    height, width = _sides(op, recipe, inputs)
    size = op.shape(op.Shape(probabilities, start=0, end=2), height, width)
    mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    probabilities = op.Resize(probabilities, None, None, size, **mode)
    if decision.temperature != 1:  # as `soften` does
        powers = op.Pow(probabilities, float(1 / decision.temperature))
        probabilities = op.Div(powers, op.ReduceSum(powers, [1], keepdims=1))
    if recipe.regions:  # as `region_values` does
        bits = np.reshape(np.array([1 << place for place in range(recipe.regions)], np.float32), (1, -1, 1, 1))
        above = op.to(op.Greater(probabilities, THRESHOLD), ir.DataType.FLOAT)
        classes = op.ReduceSum(op.Mul(above, bits), [1], keepdims=0)
    elif decision.threshold is None:
        classes = op.ArgMax(probabilities, axis=1, keepdims=0)
    else:
        classes = op.Greater(op.Gather(probabilities, np.int64(1), axis=1), float(decision.threshold))
    lacking = op.IsNaN(op.Gather(probabilities, np.int64(0), axis=1))  # of one class, or of all
    classes = op.Where(lacking, np.uint8(NO_CLASS), op.to(classes, ir.DataType.UINT8))
    return classes, probabilities, logits


def of_the_image(op: Operators, recipe: Recipe, values: ir.Value) -> ir.Value:
    """Return of values of an image and of its mirror images, one behind the other, those of the image."""
    if not recipe.tta_flips:
        return values
    images = 1 + len(recipe.tta_flips)
    own, *mirrored = op.tape.op_multi_out("Split", [values], {"axis": 0, "num_outputs": images}, num_outputs=images)
    values.name = f"{values.name}_of_views"
    for number, part in enumerate(mirrored, 1):
        part.name = f"{values.name}_{number}"
    return own


def _sides(op: Operators, recipe: Recipe, inputs: Inputs) -> tuple[ir.Value, ir.Value]:
    """Return the height and the width of the input."""
    first = 1 if recipe.image_kind == "photograph" else 2
    return op.size(inputs.image, first), op.size(inputs.image, first + 1)


def _matrices(op: Operators, recipe: Recipe, inputs: Inputs) -> tuple[ir.Value, ir.Value]:
    """Return what shrinks the rows, (rows, height), and the columns, (columns, width)."""
    sides = _sides(op, recipe, inputs)
    targets: list[Any]
    if recipe.size is not None:
        targets = [op.value([side]) for side in recipe.size[::-1]]
    else:
        lengths = op.Mul(op.to(op.shape(*sides), ir.DataType.DOUBLE), inputs.spacing)
        rounded = op.Round(op.Div(lengths, np.float64(recipe.spacing)))
        counts = op.Max(op.to(rounded, ir.DataType.INT64), 1)
        targets = [op.Slice(counts, [axis], [axis + 1]) for axis in (0, 1)]
    rows, columns = (op.shrinking_matrix(*pair) for pair in zip(sides, targets, strict=True))
    return rows, columns


def _grays(op: Operators, recipe: Recipe, inputs: Inputs) -> ir.Value:
    """Window and shrink slices: (batch, slices, height, width) -> (batch, slices * windows, rows, columns)."""
    values = op.Unsqueeze(inputs.image, [2])
    channels, free = [], 0
    for window in recipe.windows:
        if isinstance(window, VoiWindow):
            channels.append(_fixed_window(op, values, window))
        else:
            assert inputs.windows is not None  # a recipe with free windows has this input
            channels.append(_free_window(op, values, inputs.windows, free))
            free += 1
    gray = op.Concat(*channels, axis=2) if len(channels) > 1 else channels[0]
    inverted = op.Reshape(inputs.inverted, [-1, 1, 1, 1, 1])
    gray = op.Where(inverted, op.Sub(1.0, gray), gray)
    low, high = recipe.output_range
    gray = op.Add(op.Mul(gray, float(high - low)), float(low))
    height, width = _sides(op, recipe, inputs)
    gray = op.Reshape(gray, op.shape(0, recipe.channels, height, width))
    rows, columns = _matrices(op, recipe, inputs)
    return op.MatMul(op.MatMul(rows, gray), op.Transpose(columns, perm=[1, 0]))


def _fixed_window(op: Operators, values: ir.Value, window: VoiWindow) -> ir.Value:
    """Map values to [0, 1] as `apply_voi_lut` does."""
    if window.function == "SIGMOID":
        return op.Sigmoid(op.Mul(op.Sub(values, float(window.center)), float(4 / window.width)))
    center, width = window.ramp
    if width == 0:
        return op.to(op.Greater(values, float(center)), ir.DataType.FLOAT)
    return op.Clip(op.Mul(op.Sub(values, float(center - width / 2)), float(1 / width)), 0.0, 1.0)


def _free_window(op: Operators, values: ir.Value, windows: ir.Value, number: int) -> ir.Value:
    """Map values to [0, 1] between the black and the white that are given for each slice."""
    edges = op.Unsqueeze(op.Slice(windows, [number], [number + 1], [2]), [4])  # (batch, slices, 1, 2, 1)
    black, white = (op.Slice(edges, [end], [end + 1], [3]) for end in (0, 1))
    width = op.Max(op.Sub(white, black), LEAST_WIDTH)
    return op.Clip(op.Div(op.Sub(values, black), width), 0.0, 1.0)


def _colors(op: Operators, recipe: Recipe, inputs: Inputs) -> ir.Value:
    """Shrink and normalize photographs: (batch, height, width, 3) uint8 -> (batch, 3, rows, columns) float32."""
    height, width = _sides(op, recipe, inputs)
    rows, columns = _matrices(op, recipe, inputs)
    flat = op.Reshape(op.to(inputs.image, ir.DataType.FLOAT), op.shape(0, height, -1))
    shrunk = op.Reshape(op.MatMul(rows, flat), op.shape(0, -1, width, 3))  # rows first: that needs no transposed copy
    colors = op.MatMul(op.Transpose(shrunk, perm=[0, 3, 1, 2]), op.Transpose(columns, perm=[1, 0]))
    mean, std = (np.reshape(np.array(numbers, np.float32), (1, -1, 1, 1)) for numbers in (recipe.mean, recipe.std))
    return op.Div(op.Sub(colors, mean), std)

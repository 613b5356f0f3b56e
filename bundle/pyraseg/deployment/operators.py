# SPDX-License-Identifier: Apache-2.0
"""ONNX operators as Python expressions, and the few compound ones that the way of an image needs.

Sizes are run-time values throughout, so that a graph holds for every size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

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

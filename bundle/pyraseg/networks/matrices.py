# SPDX-License-Identifier: Apache-2.0
"""Pooling and interpolation as matrices, computed from run-time sizes, so that exported graphs hold for every size."""

import torch
from torch import Tensor


def numbered(bins: list[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for the bins of several levels in a row, the number of each within its level and its level's count."""
    numbers: list[int] = []
    counts: list[int] = []
    for count in bins:
        for number in range(count):
            numbers.append(number)
            counts.append(count)
    return torch.tensor(numbers, device=like.device), torch.tensor(counts, device=like.device)


def averaging_matrix(size: int, number: Tensor, count: Tensor, like: Tensor) -> Tensor:
    """Return the matrix that averages `size` positions into windows, as `torch.nn.AdaptiveAvgPool2d` has them.

    Args:
        size: number of positions; may be symbolic while a graph is exported.
        number, count: window i of k covers [floor(i * size / k), ceil((i + 1) * size / k)); both of shape (windows,).
        like: tensor whose device and floating type the result takes.

    Returns:
        Tensor of shape (windows, size) whose rows sum to one.
    """
    number, count = number.unsqueeze(1), count.unsqueeze(1)
    start = torch.div(number * size, count, rounding_mode="floor")
    end = torch.div((number + 1) * size + (count - 1), count, rounding_mode="floor")
    position = torch.arange(size, device=like.device)
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / (end - start).to(like.dtype)


def interpolation_matrix(size: int, number: Tensor, count: Tensor, like: Tensor, kept: int) -> Tensor:
    """Return the matrix that upsamples values linearly, as torch.nn.functional.interpolate does (corners not aligned).

    Args:
        size: number of positions; may be symbolic while a graph is exported.
        number, count: the column of value i of k; both of shape (values,), or `count` of shape (1,).
        like: tensor whose device and floating type the result takes.
        kept: return the first `kept` positions alone.

    Returns:
        Tensor of shape (kept, values).
    """
    precise = torch.promote_types(like.dtype, torch.float32)  # a half type has no number for positions beyond 256
    middle = (2 * torch.arange(kept, device=like.device) + 1).to(precise).unsqueeze(1)
    position = (middle * count / (2 * size) - 0.5).clamp(min=0)
    distance = torch.minimum(position, (count - 1).to(precise)) - number
    return (1 - distance.abs()).clamp(min=0).to(like.dtype)


def multiply_along(axis: int, matrix: Tensor, features: Tensor) -> Tensor:
    """Multiply a matrix (rows, n) with all vectors of n values that lie along one axis of a map."""
    if axis == features.dim() - 1:
        return features @ matrix.transpose(0, 1)
    product = matrix @ features.flatten(axis + 1)
    return product.reshape((*features.shape[:axis], matrix.shape[0], *features.shape[axis + 1 :]))

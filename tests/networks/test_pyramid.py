# SPDX-License-Identifier: Apache-2.0
"""Pooling by matrices equals torch's adaptive pooling, whatever the size."""

import pytest
import torch
import torch.nn.functional as F

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.networks.layers import averaging_matrix, numbered
from bundle.pyraseg.networks.pyramid import PyramidPooling


@pytest.mark.parametrize("bins", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 7), (10, 13), (33, 20)])
def test_matrices_equal_adaptive_pooling(size, bins):
    features = torch.randn(2, 3, *size, dtype=torch.float64)
    number, count = numbered([bins], features)
    rows, columns = (averaging_matrix(length, number, count, features) for length in size)
    torch.testing.assert_close(rows @ features @ columns.T, F.adaptive_avg_pool2d(features, bins), atol=1e-12, rtol=0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_exported_graph_holds_for_sizes_that_were_not_traced(spatial_dims):
    pyramid = PyramidPooling(8, pool_sizes=(1, 3, 5), spatial_dims=spatial_dims).eval()
    dynamic = {axis: torch.export.Dim(f"side_{axis}", min=2, max=64) for axis in range(2, 2 + spatial_dims)}
    example = torch.randn(2, 8, *(12, 16, 10)[:spatial_dims])
    exported = torch.export.export(pyramid, (example,), dynamic_shapes=(dynamic,)).module()
    for size in [(5, 6, 2), (7, 7, 7), (31, 18, 4)]:
        features = torch.randn(2, 8, *size[:spatial_dims])
        torch.testing.assert_close(exported(features), pyramid(features), atol=1e-5, rtol=0)


def test_levels_share_the_channels_of_the_map():
    pyramid = PyramidPooling(10, pool_sizes=(1, 2, 3))
    assert [level.shape for level in pyramid(torch.randn(2, 10, 6, 4))] == [(2, 3, b, b) for b in (1, 2, 3)]


@pytest.mark.parametrize("pool_sizes", [(), (0, 3)])
def test_refuses_no_bins(pool_sizes):
    with pytest.raises(ValueError, match="pool_sizes"):
        PyramidPooling(8, pool_sizes=pool_sizes)


def test_one_image_cannot_train_batch_norm_behind_a_global_average():
    image = torch.randn(1, 8, 6, 6)
    with pytest.raises(PyrasegError, match="`batch_size` of at least 2"):
        PyramidPooling(8, pool_sizes=(1, 3))(image)
    PyramidPooling(8, pool_sizes=(1, 3)).eval()(image)
    PyramidPooling(8, pool_sizes=(2, 3))(image)
    PyramidPooling(8, pool_sizes=(1, 3), norm=("group", {"num_groups": 2}))(image)
    with pytest.raises(PyrasegError, match="Instance norm makes a global average zero"):
        PyramidPooling(8, pool_sizes=(1, 3), norm="instance")(image)

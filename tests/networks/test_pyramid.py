# SPDX-License-Identifier: Apache-2.0
"""Pooling by matrices equals torch's adaptive pooling, whatever the size."""

import pytest
import torch
import torch.nn.functional as F

from bundle.pyraseg.networks.pyramid import PyramidPooling, averaging_matrix


@pytest.mark.parametrize("bins", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 7), (10, 13), (33, 20)])
def test_matrices_equal_adaptive_pooling(size, bins):
    features = torch.randn(2, 3, *size, dtype=torch.float64)
    rows, columns = (averaging_matrix(length, bins, features) for length in size)
    torch.testing.assert_close(rows @ features @ columns.T, F.adaptive_avg_pool2d(features, bins), atol=1e-12, rtol=0)


def test_exported_graph_holds_for_sizes_that_were_not_traced():
    pyramid = PyramidPooling(8, pool_sizes=(1, 3, 5, 7)).eval()
    height, width = torch.export.Dim("height", min=4, max=64), torch.export.Dim("width", min=4, max=64)
    example = torch.randn(2, 8, 12, 16)
    exported = torch.export.export(pyramid, (example,), dynamic_shapes=({2: height, 3: width},)).module()
    for size in [(5, 6), (7, 7), (31, 18)]:
        features = torch.randn(2, 8, *size)
        torch.testing.assert_close(exported(features), pyramid(features), atol=1e-5, rtol=0)


def test_channels_are_the_map_and_one_share_a_level():
    pyramid = PyramidPooling(10, pool_sizes=(1, 2, 3))
    assert pyramid.out_channels == 10 + 3 * 3
    assert pyramid(torch.randn(2, 10, 6, 4)).shape == (2, 19, 6, 4)


@pytest.mark.parametrize("pool_sizes", [(), (0, 3)])
def test_refuses_no_bins(pool_sizes):
    with pytest.raises(ValueError, match="pool_sizes"):
        PyramidPooling(8, pool_sizes=pool_sizes)

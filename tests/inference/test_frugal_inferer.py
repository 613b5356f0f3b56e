# SPDX-License-Identifier: Apache-2.0
"""Where memory runs out smaller pieces are tried, and the result is the same as far as it can be."""

import pytest
import torch
from monai.inferers import SimpleInferer, SliceInferer

from bundle.pyraseg.core import is_out_of_memory
from bundle.pyraseg.inference.inferers import FrugalInferer, smaller_tile
from tests.helpers.warm import python


class Small:
    """A network that looks at single pixels, and that memory suffices for up to a number of elements."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(images.shape))
        if images.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.cat([images, images.square()], dim=1)


@pytest.mark.slow
def test_a_batch_is_cut_in_two(caplog):
    images, network = torch.rand(7, 1, 32, 48), Small(2 * 32 * 48)
    expected = torch.cat([images, images.square()], dim=1)
    torch.testing.assert_close(FrugalInferer(SimpleInferer())(images, network), expected, rtol=0, atol=0)
    assert [size[0] for size in network.sizes] == [7, 4, 2, 2, 3, 2, 1]
    assert "a batch of 7 is halved" in caplog.text


@pytest.mark.slow
def test_an_image_is_cut_into_tiles_and_these_again(caplog):
    images, network = torch.rand(1, 1, 200, 160), Small(96 * 80)
    expected = torch.cat([images, images.square()], dim=1)
    torch.testing.assert_close(FrugalInferer(SimpleInferer())(images, network), expected)
    assert "200 x 160 pixels are cut into tiles of 128 x 160" in caplog.text
    assert max(a * b for _, _, a, b in network.sizes if a * b <= network.most) == 64 * 96


def test_slices_of_a_volume(caplog):
    volume = torch.rand(1, 1, 96, 64, 5)
    inferer = FrugalInferer(SliceInferer(roi_size=[-1, -1], spatial_dim=2, sw_batch_size=4))
    result = inferer(volume, Small(2 * 96 * 64))
    torch.testing.assert_close(result, torch.cat([volume, volume.square()], dim=1))


@pytest.mark.slow
def test_what_does_not_help_is_told():
    with pytest.raises(torch.OutOfMemoryError):
        FrugalInferer(SimpleInferer())(torch.rand(1, 1, 200, 160), Small(10))

    def broken(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        FrugalInferer(SimpleInferer())(torch.rand(2, 1, 64, 64), broken)


def test_tiles_halve_the_longer_side():
    assert smaller_tile(torch.Size([512, 512])) == (256, 256)
    assert smaller_tile(torch.Size([300, 200])) == (160, 200)
    assert smaller_tile(torch.Size([64, 64])) is None


def test_the_real_error_of_the_cpu_is_known(tmp_path):
    """In another process, whose address space ends 400 MB from here, the network's output needs 537 MB."""
    program = """
import resource, torch
from bundle.pyraseg.core import is_out_of_memory
from bundle.pyraseg.inference.inferers import FrugalInferer
from monai.inferers import SimpleInferer
torch.set_num_threads(1)
network = torch.nn.Conv2d(1, 64, 1)
images = torch.ones(8, 1, 512, 512)
network(images[:1])
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20, -1))
try:
    torch.empty(2**31)
except RuntimeError as error:
    print(is_out_of_memory(error))
with torch.no_grad():
    print(tuple(FrugalInferer(SimpleInferer())(images, lambda x: network(x)[:, :1].clone()).shape))
"""
    done = python("-c", program, cwd=tmp_path)
    assert done.stdout.split("\n")[:2] == ["True", "(8, 1, 512, 512)"], done.stdout + done.stderr
    assert "a batch of 8 is halved" in done.stderr


def test_a_message_of_another_kind_is_no_shortage():
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(RuntimeError("memory format"))

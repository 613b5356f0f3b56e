# SPDX-License-Identifier: Apache-2.0
"""What a TensorRT engine needs is asked for in words. (No engine was ever run: TensorRT was not at hand.)"""

import pytest
import torch

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.settings import ModelSettings
from bundle.pyraseg.deployment.onnx_network import load_engine


def test_without_a_file_it_says_how_to_write_one(tmp_path):
    with pytest.raises(PyrasegError, match=r"no TensorRT engine at .*none.trt.ts. Compile it."):
        load_engine(tmp_path / "none.trt.ts", settings=ModelSettings({}, {}), remedy="Compile it.")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    (tmp_path / "model.trt.ts").write_bytes(b"an engine")
    with pytest.raises(PyrasegError, match=r"torch sees none\. Leave inference_trt\.json out"):
        load_engine(tmp_path / "model.trt.ts", settings=ModelSettings({}, {}), remedy="")

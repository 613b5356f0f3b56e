# SPDX-License-Identifier: Apache-2.0
"""`pyraseg pick-form` on networks of known speed."""

import re

import onnx
import onnx_ir as ir
import pytest
from torch import nn

from bundle.pyraseg.commands import pick_form
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.deployment.exporting import describe, network_model


def write(network: nn.Module, path) -> None:
    onnx.save(ir.to_proto(describe(network_model(network.eval(), 3), {})), path)


@pytest.mark.slow
def test_the_faster_of_two_is_named(tmp_path, capsys):
    write(nn.Conv2d(3, 2, 1), tmp_path / "tumor.int8.network.onnx")
    write(
        nn.Sequential(nn.Conv2d(3, 64, 9, padding=4), nn.Conv2d(64, 2, 9, padding=4)), tmp_path / "tumor.network.onnx"
    )
    pick_form.main([str(tmp_path / "tumor"), "--size", "64", "48", "--threads", "1", "--repeats", "3"])
    *rows, last = capsys.readouterr().out.strip().splitlines()
    times = [float(re.match(r" *([\d.]+) ms", row)[1]) for row in rows]
    assert times == sorted(times) and len(times) >= 2
    assert last.endswith(f", int8, {tmp_path / 'tumor.int8.network.onnx'}")


def test_what_was_not_compared_is_timed_and_not_named(tmp_path, capsys, monkeypatch):
    write(nn.Conv2d(3, 2, 1), tmp_path / "tumor.network.onnx")
    path = tmp_path / "tumor.network.onnx"

    def both(files, threads, shape):
        slow = pick_form.on_onnxruntime(path, threads, (9, 256, 256))
        return {"ONNX Runtime, 1 thread, float": slow, "OpenVINO, 1 thread, int8": lambda: None}

    monkeypatch.setattr(pick_form, "candidates", both)
    pick_form.main([str(tmp_path / "tumor"), "--threads", "1", "--repeats", "3"])
    *rows, last = capsys.readouterr().out.strip().splitlines()
    assert rows[0].endswith("OpenVINO, 1 thread, int8")
    assert last == f"Fastest of those that were compared with PyTorch: ONNX Runtime, 1 thread, float, {path}"


def test_without_files_it_says_how_to_write_them(tmp_path):
    with pytest.raises(PyrasegError, match=r"neither .*tumor.network.onnx nor .*Write them first: pyraseg exp"):
        pick_form.main([str(tmp_path / "tumor")])

# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a GPU, tried on the CPU with small sizes: each result is kept, and a rerun goes on with the rest."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.gpu import ROOT, STEPS, main


def measure(folder, *arguments: str) -> int:
    places = ["--device", "cpu", "--small", "--work", str(folder / "work"), "--output", str(folder / "gpu.json")]
    return main([*places, *arguments])


def results(folder) -> dict[str, dict]:
    return json.loads((folder / "gpu.json").read_text(encoding="utf-8"))["steps"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "gpu.json")]) == 2
    assert "There is no GPU" in capsys.readouterr().out
    assert not (tmp_path / "gpu.json").exists()


def test_it_goes_on_with_what_is_missing(tmp_path, monkeypatch, capsys):
    asked: list[str] = []

    def answer(options, name, seconds):
        asked.append(name)
        return {"failed": "out of memory"} if name == "resuming" and asked.count(name) == 1 else {"wall_s": 1.0}

    monkeypatch.setattr("benchmarks.gpu.child", answer)
    assert measure(tmp_path, "--only", "card", "resuming") == 1
    assert "Missing: resuming" in capsys.readouterr().out
    assert measure(tmp_path) == 0
    assert asked == ["card", "resuming", *[name for name in STEPS if name != "card"]]
    assert set(results(tmp_path)) == set(STEPS)
    with pytest.raises(SystemExit, match="holds results of cpu"):
        main(["--device", "meta", "--output", str(tmp_path / "gpu.json")])


def test_what_the_time_cuts_off_is_left_for_the_next_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.gpu.LEAST_SECONDS", 0)
    assert measure(tmp_path, "--minutes", "0.01", "--only", "training, amp") == 1  # nothing is imported by then
    assert not results(tmp_path) and "Missing: training, amp" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_of_it_runs_on_the_cpu(tmp_path):
    code = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small", "--minutes", "30"]
    places = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "gpu.json")]
    done = subprocess.run([*code, *places], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    assert set(found) == set(STEPS)
    paces = [name for name in STEPS if "loop" in name or name.startswith("training")]
    assert len(paces) == 9 and all(found[name]["images_per_second"] > 0 for name in paces)
    assert found["resuming"]["repeated"] == found["resuming"]["resumed"] == 0 < found["resuming"]["learned_meanwhile"]
    assert found["files to files"]["series"] > 0
    assert found["ONNX Runtime, CUDA"]["largest_error"] < 1e-3
    assert "TensorrtExecutionProvider" in found["ONNX Runtime, TensorRT"]["left_out"]

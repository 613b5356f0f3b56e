# SPDX-License-Identifier: Apache-2.0
"""What a process says of memory and threads where it begins."""

import os
import platform
import subprocess
import sys

import pytest

from bundle.pyraseg.core import keep_memory, wait_passively

FAULTS = """
import resource
import numpy as np
from bundle.pyraseg.core import keep_memory
said = keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    before = faults()
    for _ in range(10):
        np.ones(50_000_000, np.uint8)
print(said, faults() - before)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")


def run(code: str, **environment: str) -> list[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()


@glibc
def test_freed_memory_is_used_again():
    said, faults = run(FAULTS)
    assert said == "True" and int(faults) < 100  # of 122,000 pages of 4 KB


WORKERS = """
import resource
import torch
from torch.utils.data import DataLoader, Dataset
from bundle.pyraseg.core import keep_memory

class Faults(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(50_000_000, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if __name__ == "__main__":
    print(keep_memory())
    loader = DataLoader(Faults(), num_workers=1, multiprocessing_context="fork")
    print(list(loader)[-1].item())
"""


@pytest.mark.slow
@glibc
def test_forked_data_workers_keep_their_memory(tmp_path):
    script = tmp_path / "loading.py"
    script.write_text(WORKERS, encoding="utf-8")
    done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    said, faults = done.stdout.split()
    assert said == "True" and int(faults) < 20_000  # of 122,000 pages of 4 KB


@glibc
@pytest.mark.parametrize("name", ["MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stays(name):
    value = {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}.get(name, "65536")
    said, faults = run(FAULTS, **{name: value})
    assert said == "False" and int(faults) > 1000  # numpy asks for huge pages, where there are any


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_memory() is False


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_as_the_user_says(monkeypatch, given, kept):
    name = "OMP_WAIT_POLICY"
    monkeypatch.delenv(name, raising=False) if given is None else monkeypatch.setenv(name, given)
    wait_passively()
    assert os.environ[name] == kept
    monkeypatch.setenv(name, kept)  # so that it is put back


RESIDENT = """
import numpy as np
from bundle.pyraseg.core import give_back_memory, keep_memory

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

keep_memory()
arrays = [np.ones(10_000_000, np.uint8) for _ in range(30)]
kept = arrays[-1]  # what lies above the others
full = resident()
del arrays
freed = resident()
give_back_memory()
print(full - freed, full - resident(), kept.sum())
"""


@glibc
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_what_is_free_is_given_back_between_phases():
    before, after, kept = map(int, run(RESIDENT))
    assert before < 20_000 and after > 250_000 and kept == 10_000_000  # KB, of 290 MB that were freed

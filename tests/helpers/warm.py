# SPDX-License-Identifier: Apache-2.0
"""Python programs in processes of their own that need not import PyTorch and MONAI first, which takes them 5 seconds.

A process that has imported what comes from others, and nothing of the bundle, waits for requests; it forks, and the
fork becomes the program: in the folder, with the arguments and the environment of the request, until the interpreter
ends as it always does. What the others warn of while they are imported is not seen, all forks share one seed of hashes,
and what the others read from the environment when they are imported (as the hub's client does) is that of the first
request: a test of one of these asks for a fresh interpreter. Nor is an import seen that the program lacks, or makes in
the wrong order or place, of what is there already: one run of each kind in test_loop.py asks for a fresh interpreter.

A process that a program leaves behind fails the test (on Linux, whose kernel hands such processes to the server).
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import subprocess
import sys
import tempfile
import time
import types
from functools import cache
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
ROOT = Path(__file__).resolve().parents[2]
#: What training, evaluation and inference import of others.
LIBRARIES = (
    "monai.bundle", "monai.engines", "monai.handlers", "torch._dynamo", "torch.utils.tensorboard", "nibabel", "pydicom",
    "scipy.ndimage", "scipy.optimize", "PIL.Image",
)  # fmt: skip


def python(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None, fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run what `python ARGUMENTS` runs, `-m MODULE ...` or `-c PROGRAM ...`; the caller looks at the return code.

    Args:
        cwd: the folder in which the program runs.
        environment: all variables that it sees, those of this process if None.
        fresh: start an interpreter instead.

    Raises:
        AssertionError: the program has ended, and a process that it started has not.
    """
    variables = dict(os.environ if environment is None else environment)
    if fresh:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        request = {"arguments": arguments, "cwd": str(cwd), "environment": variables, "outputs": [*map(str, outputs)]}
        try:
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            code, left = json.loads(server.stdout.readline())
            assert not left, f"{arguments} left a process behind"
        except BaseException:  # as above, the time of the test is up, or the server died: another answers the next test
            _server.cache_clear()
            os.killpg(server.pid, 9)
            raise
        return subprocess.CompletedProcess(arguments, code, *(path.read_text() for path in outputs))


@cache
def _server() -> subprocess.Popen[str]:
    # PyTorch asks the driver for its GPUs without starting CUDA, which no fork could use any more.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.warm"], cwd=ROOT, env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    atexit.register(server.communicate)  # it ends with its input
    return server


def _next_fork() -> list[str]:
    """Fork for each request; return the arguments of one in its fork, and end the process where no more come."""
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process:
            _, status = os.waitpid(process, 0)
            print(json.dumps([os.waitstatus_to_exitcode(status), _is_left()]), flush=True)
            continue
        for number, path in enumerate([os.devnull, *request["outputs"]]):
            file = os.open(path, os.O_RDWR | os.O_CREAT)
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        return request["arguments"]
    sys.exit()


def _is_left(seconds: float = 5) -> bool:
    """Return whether processes of a program that has ended are still there after some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not ended:
            time.sleep(0.01)
    return True


def _become(kind: str, program: str, *arguments: str) -> None:
    """Go on as `python -m PROGRAM ARGUMENTS` or `python -c PROGRAM ARGUMENTS`."""
    import numpy as np

    np.random.seed(random.SystemRandom().getrandbits(32))  # as a new interpreter has one of its own
    importlib.invalidate_caches()
    path = [item for item in os.environ.get("PYTHONPATH", "").split(os.pathsep) if item]
    sys.path[:1] = [os.getcwd() if kind == "-m" else "", *path]
    if kind == "-m":
        sys.argv = [program, *arguments]
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *arguments]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), vars(main))


def _import_libraries() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    from bundle.pyraseg.networks import import_with_torchvision

    import_with_torchvision("timm")
    for name in [name for name in sys.modules if name.partition(".")[0] == "bundle"]:
        del sys.modules[name]  # the program brings its own
    gc.collect()
    gc.freeze()  # no fork copies the pages of all these objects at its end, only to forget them: that takes a second


if __name__ == "__main__":
    _import_libraries()
    if sys.platform == "linux":
        assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
    _become(*_next_fork())

# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may use."""

import logging
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.pyraseg.core import files
from bundle.pyraseg.core.telling import tell
from tests.helpers.shared import made_once


@pytest.fixture(autouse=True)
def no_run_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin where no run is open: a command of the test before has left its own."""
    monkeypatch.setattr(files, "_protected", None)


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    """Let each test hear again what is told once in a process."""
    tell.cache_clear()


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """Take away what a test has put on the root logger: MONAI's runs in this process leave a stream that is closed.

    Our own loggers are as loud again as before: commands quieten some, for the rest of their process.
    """
    root = logging.getLogger()
    before, levels = list(root.handlers), _levels()
    yield
    for handler in set(root.handlers) - set(before):
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
    for logger in _levels():
        logger.setLevel(levels.get(logger, logging.NOTSET))


def _levels() -> dict[logging.Logger, int]:
    """Return the level of the root logger and of each of ours."""
    root = logging.getLogger()
    known = [logger for name, logger in root.manager.loggerDict.items() if name.startswith("bundle")]
    return {logger: logger.level for logger in (root, *known) if isinstance(logger, logging.Logger)}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of public test images, or skip the test where there is none."""
    folder = os.environ.get("PYRASEG_TEST_DATA")
    if not folder:
        pytest.skip("PYRASEG_TEST_DATA is not set: it names the folder of public test images")
    return Path(folder)


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Return what lets the system refuse files of more bytes than that, as a full disk does: in the midst of a write.

    A negative number lifts the limit; the end of the test does, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size < 0 else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def phantom_build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Write the default study; return its folder and the seconds of processor time that it took in all processes."""

    from bundle.pyraseg_tools.datasets.phantom import write_phantom_study  # with PyTorch, which takes seconds

    def make(folder: Path) -> None:
        before = os.times()[:4]
        write_phantom_study(folder / "study")
        (folder / "seconds").write_text(str(sum(os.times()[:4]) - sum(before)))

    folder = made_once(tmp_path_factory, "phantom", make)
    return folder / "study", float((folder / "seconds").read_text())


@pytest.fixture(scope="session")
def phantom_study(phantom_build: tuple[Path, float]) -> Path:
    """Return the folder of the default phantom study (24 patients)."""
    return phantom_build[0]

# SPDX-License-Identifier: Apache-2.0
"""A PACS with a few series, and a model."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.pyraseg_tools.pacs.connection import PASSWORD, TOKEN, USER
from tests.helpers import orthanc
from tests.helpers.console import restore_console as restore_console
from tests.helpers.exported import Exported, exported
from tests.helpers.onnx_paths import WINDOWS, volume
from tests.helpers.orthanc import Orthanc


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc.running(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def pacs(server: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Orthanc:
    """Return an empty PACS, whose credentials are in the environment."""
    server.remove()
    monkeypatch.setenv(USER, orthanc.USER)
    monkeypatch.setenv(PASSWORD, orthanc.PASSWORD)
    monkeypatch.delenv(TOKEN, raising=False)
    return server


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return a model with random weights that finds all of its classes somewhere."""
    return exported(tmp_path_factory.mktemp("model"), volume(*WINDOWS, context_slices=1))


@pytest.fixture
def arguments(pacs: Orthanc, model: Exported, tmp_path: Path) -> Callable[..., list[str]]:
    """Return what makes the arguments of the program: for all CT, unless told otherwise."""

    def make(*more: str, url: str = pacs.url, ca_bundle: Path | None = pacs.ca_bundle) -> list[str]:
        trust = [] if ca_bundle is None else ["--ca-bundle", str(ca_bundle)]
        filters = [] if "--filter" in more else ["--filter", "Modality=CT"]
        work = ["--work-dir", str(tmp_path / "work"), "--threads", "1", "--unlike", "ignore"]
        return [url, str(model.path), *filters, *trust, *work, *more]

    return make

# SPDX-License-Identifier: Apache-2.0
"""Sets of images, and a server of the page for clicks."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.runtime.click_model import ClickModel
from bundle.pyraseg.runtime.find import find_inputs
from bundle.pyraseg_tools.click.labeling import Labeling, by_uncertainty
from bundle.pyraseg_tools.click.places import labels_of_folder
from bundle.pyraseg_tools.click.server import Server
from tests.helpers.click_models import ClickExport, Levels, export_clicks
from tests.helpers.onnx_paths import photograph, volume

LESION = '{"lesion": {"type": ["52988006", "SCT", "Lesion"]}}'


@pytest.fixture(scope="package")
def photographs(tmp_path_factory) -> ClickExport:
    """Return a model of photographs that finds what is bright."""
    return export_clicks(
        tmp_path_factory.mktemp("photographs"), photograph(), channels=3, plain=Levels((-1.0, 1.0)), classes=2,
        class_names='["background", "lesion"]', terminology=LESION,
    )  # fmt: skip


@pytest.fixture(scope="package")
def slices(tmp_path_factory) -> ClickExport:
    """Return a model of slices that finds values above 90 and below -90."""
    shown = volume({"center": 0, "width": 400})
    return export_clicks(tmp_path_factory.mktemp("slices"), shown, channels=1, plain=Levels((0.0, 0.9, -0.9)))


def photo(path: Path, *, sure: float) -> Path:
    """Write a photograph of 160 x 100 with a bright rectangle; `sure` from 0 to 1 says how far it is from the rest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((100, 160, 3), 120, np.uint8)
    pixels[..., 0] = 120 - round(50 * sure)
    pixels[30:70, 90:140] = (120 + round(80 * sure), 60, 60)
    Image.fromarray(pixels).save(path)
    return path


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Answer requests in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def serve(tmp_path) -> Iterator[Callable[..., Server]]:
    """Return a function that serves the images of a folder."""
    with ExitStack() as stack:

        def start(model: ClickExport, images: Path, **options: Any) -> Server:
            labels, failures = labels_of_folder(images), []
            loaded = ClickModel(model.path, threads=1)
            items = find_inputs(images, leave_out=labels)
            tasks = by_uncertainty(loaded, items, labels, options=options, failed=lambda *one: failures.append(one))
            assert failures == []
            labeling = Labeling(loaded, tasks, tmp_path / "runs" / "clicks.csv", options)
            return stack.enter_context(serving(Server(labeling)))

        yield start

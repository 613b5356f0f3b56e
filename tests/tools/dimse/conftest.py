# SPDX-License-Identifier: Apache-2.0
"""A listener with its inbox, and a segmenter that needs no model."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from bundle.pyraseg.dicom import read_series, read_sources
from bundle.pyraseg.labels import SegmentClass, write_segmentation
from bundle.pyraseg_tools.dimse import Caller, Commitments, Inbox, Listener, Peer, Timeouts
from tests.helpers.dimse_nodes import Archive

QUICK = Timeouts(connection=5, acse=3, dimse=20, network=20)


def threshold(images: Sequence[Path], folder: Path, *, name: str) -> str:
    """Find what is brighter than 100 HU, and write it as DICOM SEG."""
    image = read_series(list(images))
    sources = read_sources(image.files)
    mask = (image.pixels > 100).astype(np.uint8)
    write_segmentation(folder / "series_seg.dcm", mask, sources, [SegmentClass.organ("liver")])
    return f"voxels: liver {mask.sum()}"


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="bundle")


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "received")


@pytest.fixture
def commitments() -> Commitments:
    return Commitments()


@pytest.fixture
def listening(inbox: Inbox, commitments: Commitments) -> Iterator[Callable[..., int]]:
    """Return what starts a listener and returns its port."""
    with ExitStack() as stack:

        def start(**options: object) -> int:
            given = {"title": "PYRASEG", "peers": ["CT1", "ARCHIVE"], "address": ("127.0.0.1", 0), "timeouts": QUICK}
            listener = Listener(options.pop("inbox", inbox), commitments, **{**given, **options})
            stack.callback(listener.stop)
            return listener.start()

        yield start


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive().running() as running:
        yield running


def to(archive: Archive, **options: object) -> Caller:
    return Caller("PYRASEG", Peer("ARCHIVE", "127.0.0.1", archive.port), timeouts=QUICK, **options)

# SPDX-License-Identifier: Apache-2.0
"""A model, what it is to do, and a store."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core import file_digest
from bundle.pyraseg.dicom import Purpose
from bundle.pyraseg_tools.archive import FolderListing, Job, Listing, Row, Wanted, read_table, write_table
from tests.helpers import s3_server
from tests.helpers.console import restore_console as restore_console
from tests.helpers.exported import Exported
from tests.helpers.s3_server import Store
from tests.tools.pacs.conftest import model as model
from tests.tools.pacs.conftest import pacs as pacs
from tests.tools.pacs.conftest import server as server


@pytest.fixture(scope="session")
def store_server() -> Iterator[Store]:
    with s3_server.running() as running:
        yield running


@pytest.fixture
def store(store_server: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return an empty store, which the environment leads to."""
    store_server.empty()
    s3_server.give_way(monkeypatch, store_server.url)
    return store_server


@pytest.fixture
def wanted() -> Wanted:
    return Wanted(Purpose(modality=("CT",), refuse=("modality",)), {})


@pytest.fixture
def job(model: Exported, tmp_path: Path) -> Callable[..., Job]:
    """Return what makes a job, with results in a folder unless told otherwise."""

    def make(target: object = tmp_path / "results", **more: object) -> Job:
        more = {"images": tmp_path / "images", "unlike": "ignore", **more}
        more = {"model": model.path, "model_hash": file_digest(model.path), "target": str(target), **more}
        return Job(**more)

    return make


@pytest.fixture
def listed(wanted: Wanted, tmp_path: Path) -> Callable[..., list[Row]]:
    """Return what lists a folder, or by another listing, into tmp_path/table.parquet, and returns the rows."""

    def make(root: Path | None = None, listing: Listing | None = None) -> list[Row]:
        listing = listing or FolderListing(root, wanted)
        write_table(tmp_path / "table.parquet", listing.rows(), listing.join)
        return list(read_table(tmp_path / "table.parquet"))

    return make


def due(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of series that are to be segmented."""
    return [row for row in rows if row.digest and not row.skip]


def masks(result: Path, sources: Iterable[Path]) -> np.ndarray:
    """Return the classes of a SEG, slice by slice along z, read by highdicom."""
    seg = hd.seg.segread(result)
    images = sorted((pydicom.dcmread(file) for file in sources), key=lambda image: image.ImagePositionPatient[2])
    return seg.get_pixels_by_source_instance(
        [image.SOPInstanceUID for image in images],
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )

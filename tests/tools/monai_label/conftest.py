# SPDX-License-Identifier: Apache-2.0
"""Packages to serve, and a PACS."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from bundle.pyraseg_tools.publishing.packing import pack
from tests.helpers import orthanc
from tests.helpers.commands import ROOT
from tests.helpers.orthanc import Orthanc
from tests.helpers.packages import package as package


@pytest.fixture(scope="session")
def volume_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package of the default task, whose encoder alone is trained."""
    folder = tmp_path_factory.mktemp("volume_package")
    torch.manual_seed(0)
    parser = ConfigParser(ConfigParser.load_config_file(ROOT / "configs" / "inference.json"))
    parser["pretrained"] = True
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "untrained.pt")
    return pack(ROOT, "phantom", folder, model=folder / "untrained.pt")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Orthanc]:
    (tmp_path / "orthanc").mkdir()
    with orthanc.running(tmp_path / "orthanc") as server:
        yield server

# SPDX-License-Identifier: Apache-2.0
"""A web site for downloads."""

from collections.abc import Iterator

import pytest

from tests.helpers.web_site import Site, serve


@pytest.fixture
def site() -> Iterator[Site]:
    """Return an empty web site on the loopback interface."""
    with serve(Site()) as site:
        yield site

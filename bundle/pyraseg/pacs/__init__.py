# SPDX-License-Identifier: Apache-2.0
"""Segment what arrives in a PACS."""

try:
    import dicomweb_client  # noqa: F401
except ImportError as error:
    raise ImportError(f'{error}. A PACS needs an extra of this package: pip install -e ".[pacs]"') from error

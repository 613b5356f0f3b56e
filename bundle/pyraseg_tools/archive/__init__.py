# SPDX-License-Identifier: Apache-2.0
"""Segment an archive: a million series from a folder, a PACS or object storage, each once, on as many machines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

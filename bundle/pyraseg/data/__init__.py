# SPDX-License-Identifier: Apache-2.0
"""What training draws from: slices, their cache, and the statistics of classes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

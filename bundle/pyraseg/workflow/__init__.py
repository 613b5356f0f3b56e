# SPDX-License-Identifier: Apache-2.0
"""What a running config asks of itself: its root, its options, its surroundings, its errors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# SPDX-License-Identifier: Apache-2.0
"""From whatever lies in a folder to label maps and pictures beside it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# SPDX-License-Identifier: Apache-2.0
"""The program `pyraseg`, a module for each of its commands."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a data set, and the settings proposed from it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

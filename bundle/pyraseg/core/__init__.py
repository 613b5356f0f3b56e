# SPDX-License-Identifier: Apache-2.0
"""What every room builds on: errors, whole files, names of formats, several processes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

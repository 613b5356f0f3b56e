# SPDX-License-Identifier: Apache-2.0
"""Serving a package through MONAI Label: inference, labels, retraining."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

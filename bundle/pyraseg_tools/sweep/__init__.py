# SPDX-License-Identifier: Apache-2.0
"""Train a task with several seeds and settings, and say which settings are better by more than the seeds explain."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

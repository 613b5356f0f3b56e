# SPDX-License-Identifier: Apache-2.0
"""Say at the start what a run works with."""

import logging
import platform
from importlib.metadata import version

import torch

logger = logging.getLogger(__name__)

PACKAGES = ("pyraseg", "torch", "monai", "pytorch-ignite", "timm", "numpy", "pydicom")


def log_environment(*, device: torch.device | str, amp: bool) -> None:
    """Log the device, the precision and the versions of a run."""
    device = torch.device(device)
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{platform.machine()}, {torch.get_num_threads()} threads"
    logger.info("Device %s (%s), precision %s", device, hardware, "mixed (autocast)" if amp else "float32")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    logger.info("Python %s, %s", platform.python_version(), versions)

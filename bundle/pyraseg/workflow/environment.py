# SPDX-License-Identifier: Apache-2.0
"""Say at the start what a run works with."""

import json
import logging
import platform
from importlib.metadata import version

import torch
from monai.bundle import ConfigWorkflow

from bundle.pyraseg.workflow.callers import calling

logger = logging.getLogger(__name__)

PACKAGES = ("pyraseg", "torch", "monai", "pytorch-ignite", "timm", "numpy", "pydicom")


def log_environment(*, device: torch.device | str, amp: bool) -> None:
    """Log the device, the precision and the versions of a run; warn where another pyraseg than the bundle's runs."""
    device = torch.device(device)
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{platform.machine()}, {torch.get_num_threads()} threads"
    logger.info("Device %s (%s), precision %s", device, hardware, "mixed (autocast)" if amp else "float32")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    logger.info("Python %s, %s", platform.python_version(), versions)
    _compare_versions()


def _compare_versions() -> None:
    """Warn where the bundle that runs was made of another version of pyraseg than the one that is installed."""
    workflow = calling(ConfigWorkflow)
    metadata = workflow and workflow.config_root_path / "metadata.json"
    if not metadata or not metadata.is_file():
        return
    stated, installed = json.loads(metadata.read_text(encoding="utf-8"))["version"], version("pyraseg")
    if stated != installed:
        logger.warning(
            "This bundle is of pyraseg %s, and %s is installed and runs: results may differ. Install the one that "
            "comes with the bundle, in an environment of its own: pip install %s",
            stated, installed, metadata.parents[1],
        )  # fmt: skip

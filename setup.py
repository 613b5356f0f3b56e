# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: a wheel holds the configs and the models, which lie beside the code in the clone."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

#: Where `bundle.pyraseg.commands.places` looks for them in an installed package.
SHIPPED = Path("bundle", "pyraseg", "shipped")
PATTERNS = ("configs/*.json", "configs/logging.conf", "models/*.pt", "models/*.onnx", "docs/data_licenses/*.txt")
#: What trainings leave in models/, which is no part of the project.
SHIPPED_MODELS = (
    "dermoscopy.pt", "dermoscopy_click.pt", "dermoscopy_fast.pt", "dermoscopy_fast.int8.onnx", "heart.pt",
    "heart_click.pt", "hippocampus.pt", "lungs.pt", "nerves.pt", "phantom.pt", "vessels.pt",
)  # fmt: skip


class BuildWithConfigs(build_py):
    """Copy the configs and the models into a wheel; an editable installation finds those of the clone."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in [path for pattern in PATTERNS for path in Path().glob(pattern)]:
            if path.parent.name != "models" or path.name in SHIPPED_MODELS:
                target = Path(self.build_lib, SHIPPED, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildWithConfigs})

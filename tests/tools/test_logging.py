# SPDX-License-Identifier: Apache-2.0
"""What the tools log is shown in a run as what a package logs."""

import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "logging.conf"
SHOWN = """
import logging.config
import sys

logging.config.fileConfig(sys.argv[1], disable_existing_loggers=False)
for name in ("bundle.pyraseg.training.checkpoints", "bundle.pyraseg_tools.monai_label.retraining", "monai.engines"):
    logging.getLogger(name).info("from %s", name)
"""


def test_a_run_shows_what_its_code_tells_and_nothing_of_others() -> None:
    told = subprocess.run([sys.executable, "-c", SHOWN, str(CONFIG)], capture_output=True, text=True, check=True)
    shown = [word for word in (told.stdout + told.stderr).split() if word.startswith(("bundle.", "monai."))]
    assert shown == ["bundle.pyraseg.training.checkpoints", "bundle.pyraseg_tools.monai_label.retraining"]

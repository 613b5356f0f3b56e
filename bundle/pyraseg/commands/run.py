# SPDX-License-Identifier: Apache-2.0
"""Run configs as `python -m monai.bundle run` does, with options of the command line set in them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.pyraseg.commands.places import config_files, shipped
from bundle.pyraseg.core import freeing, protecting_inputs
from bundle.pyraseg.workflow import read_config, verbatim


def run_config(
    run_id: str,
    files: Sequence[Path],
    root: Path,
    options: Mapping[str, Any],
    *,
    watch: Callable[[ConfigWorkflow], None] | None = None,
) -> None:
    """Run the expressions of a run id; what the command has read before is an input of the same run.

    Args:
        run_id: such as "training".
        files: the configs, in the order in which they are merged.
        root: folder of `data/`, `models/` and `runs/`.
        options: values by their keys, and settings of MONAI's workflow, such as `tracking`.
        watch: is given the workflow before it runs.
    """
    settings = {"bundle_root": verbatim(root), "run_id": run_id, **options}
    workflow = ConfigWorkflow([str(file) for file in files], **settings)
    with protecting_inputs(), freeing():
        workflow.initialize()
        if watch is not None:
            watch(workflow)
        workflow.run()
        workflow.finalize()


def run_trained(run_id: str, names: Sequence[str], options: Mapping[str, Any], *, program: str) -> None:
    """Run a program on a trained model: that of the current folder, else the included one."""
    files, root = config_files(names, program=program)
    if "model_file" not in options:
        model = trained_model(read_config(files, {"bundle_root": verbatim(root)}))
        options = {**options, "model_file": verbatim(model)}
    run_config(run_id, files, root, options)


def trained_model(config: ConfigParser) -> Path:
    """Return the file of weights that a config names, or, where it is not there, the shipped one of the same name."""
    model = Path(config.get_parsed_content("model_file"))
    came_along = shipped() / "models" / model.name
    return came_along if not model.is_file() and came_along.is_file() else model

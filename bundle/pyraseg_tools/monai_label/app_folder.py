# SPDX-License-Identifier: Apache-2.0
"""The folder of an app that MONAI Label serves: `main.py`, and each bundle below `model/` under its own name."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bundle.pyraseg
from bundle.pyraseg.core import PyrasegError, replacing, write_text
from bundle.pyraseg.packaging import METADATA, SUMS, check_form, check_sums, read_archive, unpack

logger = logging.getLogger(__name__)

_MAIN = """from bundle.pyraseg_tools.monai_label.app import LabelApp


class App(LabelApp):
    \"\"\"MONAI Label looks for a class that this file defines.\"\"\"
"""
_INFERENCE, _TRAIN = "configs/inference.json", "configs/train.json"


def put_bundles(packages: Sequence[Path], app: Path) -> list[Path]:
    """Put bundles into the folder of an app; return their folders there.

    A bundle that is there already stays, with what has been retrained: only another one of its name is an error.

    Args:
        packages: zips that `pyraseg package` made, and folders of bundles with code of their own.
        app: folder of the app, made where it is absent.

    Raises:
        PyrasegError: what was given is no bundle, or two of them cannot be in one server.
    """
    bundles: dict[str, dict[str, bytes] | Path] = {}
    for package in packages:
        name, content = _read(package)
        if name in bundles:
            raise PyrasegError(_two_versions(f"{name} was given twice"))
        bundles[name] = content
    packed = {name: files for name, files in bundles.items() if not isinstance(files, Path)}
    _refuse_other_code(packed)
    for name, files in packed.items():
        _warn_of_other_code(name, files)
    for name, content in bundles.items():
        folder = app / "model" / name
        if isinstance(content, Path):
            if not folder.is_dir():
                with replacing(folder) as temporary:
                    shutil.copytree(content, temporary)
        elif not folder.is_dir():
            with replacing(folder) as temporary:
                unpack(_served(content), temporary)
        elif (folder / SUMS).read_bytes() != content[SUMS]:
            raise PyrasegError(_two_versions(f"{folder} holds another version of {name}, with what was retrained"))
    write_text(app / "main.py", _MAIN)
    return [app / "model" / name for name in bundles]


def _two_versions(found: str) -> str:
    return (
        f"{found}. One process holds one version of a bundle's code. Serve the other version from a second server: "
        "the same command with another --app-dir and another --port."
    )


def _read(package: Path) -> tuple[str, dict[str, bytes] | Path]:
    """Return the name of a bundle, and its files or its folder; nothing of it is run."""
    if package.is_dir():
        if not all((package / name).is_file() for name in (_INFERENCE, METADATA)):
            raise PyrasegError(f"{package} is no bundle: it has no {_INFERENCE} or no {METADATA}.")
        if (package / "bundle" / "pyraseg").is_dir():
            raise PyrasegError(f"{package} is an unpacked bundle of Pyraseg. Give its zip: `pyraseg package`.")
        return package.resolve().name, package
    try:
        name, files = read_archive(package)
        check_sums(files)
        check_form(name, files)
    except PyrasegError as error:
        raise PyrasegError(f"{package} is refused: {error}. Make it by `pyraseg package`.") from error
    return name, files


def _refuse_other_code(packages: Mapping[str, Mapping[str, bytes]]) -> None:
    """Refuse packages whose `bundle.pyraseg` differ: one process can import one of them alone."""
    codes: dict[str, str] = {}
    for name, files in packages.items():
        code = hashlib.sha256()
        for path in sorted(path for path in files if path.startswith("bundle/")):
            code.update(path.encode() + b"\0" + hashlib.sha256(files[path]).digest())
        codes.setdefault(code.hexdigest(), name)
    if len(codes) > 1:
        one, other = list(codes.values())[:2]
        raise PyrasegError(_two_versions(f"{one} and {other} were made by two versions of Pyraseg"))


def _warn_of_other_code(name: str, files: Mapping[str, bytes]) -> None:
    """Tell where the code of a package is not the one that is installed, whose label server calls it."""
    root = Path(bundle.pyraseg.__file__).parents[2]
    code = [path for path in sorted(files) if path.startswith("bundle/")]
    other = [path for path in code if not (root / path).is_file() or (root / path).read_bytes() != files[path]]
    if other:
        logger.warning(
            "%s was made by another version of Pyraseg than the one installed here: %d of its %d files of code differ, "
            "such as %s. The label server of this version may fail with it. If so, install the version that made it, "
            "or make it again with this one: `pyraseg package`.",
            name, len(other), len(code), other[0],
        )  # fmt: skip


def _served(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return a package's files with configs as MONAI Label wants them; what they mean stays."""
    inference, train, metadata = (json.loads(files[path]) for path in (_INFERENCE, _TRAIN, METADATA))
    _adapt(inference, train, metadata)
    adapted = {_INFERENCE: inference, _TRAIN: train, METADATA: metadata}
    return {**files, **{path: json.dumps(config, indent=1).encode() for path, config in adapted.items()}}


def _adapt(inference: dict[str, Any], train: dict[str, Any], metadata: dict[str, Any]) -> None:
    if inference["image_kind"] != "volume":  # MONAI Label writes (1, W, H) as a volume
        inference["postprocessing"]["transforms"].append({"_target_": "SqueezeDimd", "keys": "pred", "dim": 0})
    else:  # the number of entries says how many axes an image has, also where the network sees one slice of it
        shape = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
        shape += ["n"] * (3 - len(shape))
    if "mask_threshold" in train and train["mask_threshold"] is None:
        train["mask_threshold"] = 1  # masks of labellers hold 255, those of an inference that was corrected hold 1
    steps = train["run"]
    train["run"] = [
        *steps[: steps.index("$@train#trainer.run()")],
        {
            "_target_": "bundle.pyraseg_tools.monai_label.retrain",
            "trainer": "@train#trainer",
            "evaluator": "@validate#evaluator",
            "network": "@network_def",
            "weights": "$@output_dir + '/best.pt'",
            "model": "@model_file",
            "settings": "@settings",
            "data": ["@train#dataset", "@validate#dataset"],
            "seed": "@seed",
        },
    ]

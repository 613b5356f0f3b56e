# SPDX-License-Identifier: Apache-2.0
"""Export a trained model to ONNX: the network alone, and the whole path from raw pixels to classes as one graph.

pyraseg export dermoscopy

writes models/dermoscopy.onnx, for `pyraseg segment --model` and `python -m bundle.pyraseg.runtime`, and
models/dermoscopy.network.onnx. Both are compared with PyTorch at several sizes, in logits and classes, before they are
written (docs/deployment.md). Options of the config, such as `--spacing 2.0`, must repeat those of the training.
"""

import argparse
import json
from collections.abc import Mapping
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.options import add_configs, split_options
from bundle.pyraseg.commands.places import config_files, shipped
from bundle.pyraseg.commands.run import trained_model
from bundle.pyraseg.core import PyrasegError, file_digest, require_writable
from bundle.pyraseg.workflow import merge_files, read_config, regions_of, verbatim


def arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = command_parser("export", __doc__)
    add_configs(parser, "inference")
    parser.add_argument("--model-file", type=Path, help="trained weights (default: those of the config)")
    parser.add_argument("--output-dir", type=Path, help="where to write (default: the folder of the weights)")
    parser.add_argument("--metadata", type=Path, nargs="+", default=None,
                        help="metadata files (default: metadata.json and the task's, next to the configs)")  # fmt: skip
    parser.add_argument("--run", type=Path, help="output folder of the training, to add the hash of its data")
    parser.add_argument("--license", help="license of the weights (default: that in the metadata)")
    parser.add_argument("--threshold", type=float, help="probability from which the second of two classes is chosen")
    parser.add_argument("--network-only", action="store_true", help="write the network alone")
    return split_options(parser, argv)


def read_metadata(configs: list[Path], given: list[Path] | None) -> dict[str, Any]:
    """Return the merged metadata of the bundle and the task."""
    beside = [configs[0].with_name("metadata.json")]
    beside += [file.with_name(file.name.replace("_inference.json", "_metadata.json")) for file in configs[1:]]
    return merge_files(given or [file for file in dict.fromkeys(beside) if file.is_file()])


def data_of(run: Path | None) -> dict[str, str]:
    """Return what the record of a training says of its data: the hash of the split, the number of cases."""
    if run is None:
        return {}
    record = run / "run.json"
    if not record.is_file():
        raise PyrasegError(f"There is no record at {record}. Give the output folder of the training.")
    content = json.loads(record.read_text(encoding="utf-8"))
    return {"data": json.dumps(content["split"]), "revision": content["revision"]}


def float_files(weights: Path, root: Path, folder: Path | None = None) -> tuple[Path, Path]:
    """Return where the network and the whole path of weights are written.

    Args:
        weights: their file; of those that came with the package, the folder of the package is left alone.
        root: of the bundle that the command works in.
        folder: another place; None: that of the weights.
    """
    came_along = weights.parent == shipped() / "models" and shipped() != root
    folder = folder or (root / "models" if came_along else weights.parent)
    return folder / f"{weights.stem}.network.onnx", folder / f"{weights.stem}.onnx"


def write(
    config: ConfigParser,
    weights: Path,
    network_file: Path,
    path_file: Path | None,
    *,
    about: Mapping[str, Any],
    data: Mapping[str, str] | None = None,
    license: str | None = None,
    threshold: float | None = None,
) -> None:
    """Export trained weights, and tell how well the files agree with PyTorch.

    Args:
        config: of inference.
        weights: their file.
        network_file: the network alone.
        path_file: the whole path; None: it is not wanted.
        about: metadata of the bundle and the task.
        data: what the record of the training says of its data, see `data_of`.
        license: of the weights; None: that in the metadata, or that of the bundle where these name none.
        threshold: probability from which the second of two classes is chosen.

    Raises:
        PyrasegError: there are no such weights, they cannot be exported, or a graph computes something else.
    """
    from bundle.pyraseg.deployment import Decision, Parts, export
    from bundle.pyraseg.inference import PROPERTY, read_guard
    from bundle.pyraseg.runtime import tell_without_guard
    from bundle.pyraseg.training import load_model
    from bundle.pyraseg.transforms import read_temperature

    require_writable(files=[network_file, *([] if path_file is None else [path_file])])
    settings, remedy = (config.get_parsed_content(name) for name in ("settings", "remedy"))
    if "network_def#in_channels" not in config:
        raise PyrasegError(
            f"The network {config['network_def']['_target_']} has no in_channels in its config, and a graph is made "
            "for so many channels. Name a class that takes in_channels and hands it on under the network's own name."
        )
    network = load_model(config.get_parsed_content("network_def"), weights, settings=settings, remedy=remedy)
    class_names, regions = config["class_names"], regions_of(config)
    decision = Decision(read_temperature(weights) or 1.0, threshold)
    parts = Parts(
        network,
        config.get_parsed_content("network_def#in_channels"),
        len(class_names),
        *(config.get_parsed_content(name) for name in ("preprocessing", "inferer", "postprocessing", "image_kind")),
        regions=len(regions or ()),
    )
    properties = {
        "name": about["name"],
        "description": f"{about['task']}. {about['description']}",
        "intended_use": about["intended_use"],
        "data_source": about["data_source"],
        "license": license or about.get("weights_license") or metadata("pyraseg")["License-Expression"],
        "class_names": json.dumps(class_names),
        **({} if regions is None else {"regions": json.dumps(regions)}),
        "settings": json.dumps(settings.values),
        "terminology": json.dumps(config["terminology"]),
        "algorithm": config["algorithm"]["name"],
        "version": metadata("pyraseg")["Version"],
        "weights_sha256": file_digest(weights),
        **({} if (guard := read_guard(weights)) is None else {PROPERTY: guard.text}),
        **(data or {}),
    }
    print(f"Exporting {weights} and comparing the graphs with PyTorch; this takes half a minute", flush=True)
    agreements = export(parts, network_file, path_file, properties=properties, decision=decision)
    for path, agreement in agreements.items():
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {agreement}")
    if guard is None:
        tell_without_guard(weights)
    if not data:
        print("The files name no data: give the folder of the training to pyraseg export, --run, for its hash.")
    print(f"Written: {', '.join(map(str, agreements))}", flush=True)


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    files, root = config_files(options.tasks, program="inference")
    config = read_config(files, {"bundle_root": verbatim(root), "device": "cpu", **settings})
    weights = options.model_file or trained_model(config)
    network_file, path_file = float_files(weights, root, options.output_dir)
    write(
        config,
        weights,
        network_file,
        None if options.network_only else path_file,
        about=read_metadata(files, options.metadata),
        data=data_of(options.run),
        license=options.license,
        threshold=options.threshold,
    )

# SPDX-License-Identifier: Apache-2.0
"""Export a trained model to ONNX: the network alone, and the whole path from raw pixels to classes as one graph.

pyraseg export dermoscopy

writes models/dermoscopy.onnx, for `pyraseg segment --model` and `python -m bundle.pyraseg.runtime`, and
models/dermoscopy.network.onnx. Both are compared with PyTorch at several sizes, in logits and classes, before they are
written (docs/deployment.md). Options of the config, such as `--spacing 2.0`, must repeat those of the training.
"""

import argparse
import json
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

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
    parser.add_argument("--license", help="license of the weights (default: that of the bundle)")
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


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    # Behind the arguments, so that --help needs no extra.
    from bundle.pyraseg.deployment import Decision, Parts, export
    from bundle.pyraseg.inference import PROPERTY, read_guard
    from bundle.pyraseg.runtime import tell_without_guard
    from bundle.pyraseg.training import load_model
    from bundle.pyraseg.transforms import read_temperature

    files, root = config_files(options.tasks, program="inference")
    config = read_config(files, {"bundle_root": verbatim(root), "device": "cpu", **settings})
    about = read_metadata(files, options.metadata)
    weights = options.model_file or trained_model(config)
    came_along = weights.parent == shipped() / "models" and shipped() != root
    folder = options.output_dir or (root / "models" if came_along else weights.parent)
    network_file, path_file = folder / f"{weights.stem}.network.onnx", folder / f"{weights.stem}.onnx"
    require_writable(files=[path_file])
    data = data_of(options.run)
    settings, remedy = (config.get_parsed_content(name) for name in ("settings", "remedy"))
    network = load_model(config.get_parsed_content("network_def"), weights, settings=settings, remedy=remedy)
    class_names, regions = config["class_names"], regions_of(config)
    decision = Decision(read_temperature(weights) or 1.0, options.threshold)
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
        "license": options.license or metadata("pyraseg")["License-Expression"],
        "class_names": json.dumps(class_names),
        **({} if regions is None else {"regions": json.dumps(regions)}),
        "settings": json.dumps(settings.values),
        "terminology": json.dumps(config["terminology"]),
        "algorithm": config["algorithm"]["name"],
        "version": metadata("pyraseg")["Version"],
        "weights_sha256": file_digest(weights),
        **({} if (guard := read_guard(weights)) is None else {PROPERTY: guard.text}),
        **data,
    }
    print(f"Exporting {weights} and comparing the graphs with PyTorch; this takes half a minute", flush=True)
    agreements = export(
        parts,
        network_file,
        None if options.network_only else path_file,
        properties=properties,
        decision=decision,
    )
    for path, agreement in agreements.items():
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {agreement}")
    if guard is None:
        tell_without_guard(weights)
    if not data:
        print("The files name no data: give the folder of the training, --run, for its hash.")
    print(f"Written: {', '.join(map(str, agreements))}")

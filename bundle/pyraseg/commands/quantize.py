# SPDX-License-Identifier: Apache-2.0
"""Quantize an exported model to int8, and keep the result only if it is as good on validation cases.

pyraseg export dermoscopy
pyraseg quantize dermoscopy --dataset-dir data/dermoscopy

writes models/dermoscopy.int8.network.onnx and models/dermoscopy.int8.onnx next to the float files. Ranges of
activations are measured on training cases. The gate: on the validation cases, the mean Dice falls by at most 0.005, and
99.5 % of the pixels keep their class. Otherwise nothing is written, and the layers that change most pixels are named
(docs/int8.md). Networks of volumes in three dimensions stay in float. Options of the config, such as `--spacing 2.0`,
must repeat those of the training.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.bundle import ConfigParser
from monai.transforms import Compose
from tqdm import tqdm

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.options import add_configs, split_options
from bundle.pyraseg.commands.places import config_files
from bundle.pyraseg.core import PyrasegError, protect, replacing, require_writable
from bundle.pyraseg.workflow import override, read_config, verbatim

if TYPE_CHECKING:
    import onnx

    from bundle.pyraseg.deployment import Quantized

#: Layers that a message names.
NAMED = 5


def arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = command_parser("quantize", __doc__)
    add_configs(parser, "train")
    parser.add_argument("--dataset-dir", type=Path, help="data set of the training (default: that of the config)")
    parser.add_argument("--network-file", type=Path, help="float network (default: next to the weights of the config)")
    parser.add_argument("--inference", type=Path, nargs="+",
                        help="configs of inference, for the whole path (default: by name)")  # fmt: skip
    parser.add_argument("--images", type=int, default=64, help="number of training images for measuring ranges")
    parser.add_argument("--cases", type=int, help="number of validation cases for the gate (default: all)")
    parser.add_argument("--layers", action="store_true", help="print the effect of each layer, even if all can be int8")
    return split_options(parser, argv)


def training_images(cases: Sequence[dict[str, str]], preprocessing: Compose, count: int) -> list[np.ndarray]:
    """Return what the network is shown in randomly drawn training cases, (1, C, W, H) each; of volumes a few slices."""
    random = np.random.default_rng(0)
    order = random.permutation(len(cases))
    of_each = -(-count // len(order))
    images: list[np.ndarray] = []
    for index in tqdm(order[:count], desc="reading training cases", unit="case", disable=None):
        image = np.asarray(preprocessing(dict(cases[index]))["image"], np.float32)
        slices = [image] if image.ndim == 3 else np.moveaxis(image, 3, 0)
        chosen = random.permutation(len(slices))[:of_each]
        images += [np.ascontiguousarray(slices[number])[None] for number in sorted(chosen)]
    return images[:count]


def inference_configs(configs: Sequence[Path]) -> list[Path]:
    """Return the configs of inference that belong to those of a training."""
    first, *overlays = configs
    return [
        first.with_name("inference.json"),
        *(file.with_name(f"{file.stem}_inference.json") for file in overlays if not file.stem.startswith("train")),
    ]


def whole_path(network: "onnx.ModelProto", float_path: Path, config: ConfigParser) -> "onnx.ModelProto":
    """Return the whole path around a network in int8, with the decision and the description of the float one."""
    import onnx
    import onnx_ir as ir

    from bundle.pyraseg.deployment import Decision, describe, path_model, read_recipe, recipe_properties

    about = {item.key: item.value for item in onnx.load(float_path, load_external_data=False).metadata_props}
    about["precision"] = next(item.value for item in network.metadata_props if item.key == "precision")
    recipe = read_recipe(
        *(config.get_parsed_content(name) for name in ("preprocessing", "inferer", "postprocessing", "image_kind"))
    )
    properties = recipe_properties(recipe, Decision())
    if properties["recipe"] != about["recipe"]:
        raise PyrasegError(
            f"The configs of inference preprocess images differently than {float_path}. Give the configs of its "
            "export (--inference), and the same options. Nothing was written."
        )
    decision = Decision(float(about["temperature"]), float(about["threshold"]) if about["threshold"] else None)
    model = path_model(ir.from_proto(network), recipe, decision)
    return ir.to_proto(describe(model, about))


def told(quantized: "Quantized") -> str:
    """Return which layers cost most, for a message."""
    worst = [f"{layer} ({cost:.2%})" for layer, cost in list(quantized.costs.items())[:NAMED]]
    left = f"; {len(quantized.in_float)} layers are float" if quantized.in_float else ""
    return f"Layers that change most pixels if only they are int8: {', '.join(worst)}{left}."


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    # Behind the arguments, so that --help needs no extra.
    import onnx
    import onnx_ir as ir

    from bundle.pyraseg.deployment import OnnxNetwork, describe, judge, quantize, require_content

    files, root = config_files(options.tasks)
    settings = {"bundle_root": verbatim(root), "device": "cpu", **settings}
    config = read_config(files, settings)
    if options.dataset_dir:
        config["dataset_dir"] = verbatim(options.dataset_dir)
    if config.get("patch_size") is not None:
        raise PyrasegError(
            "The network sees volumes in three dimensions, and int8 is for networks of slices, photographs and "
            "radiographs. The runtime runs its float file: pyraseg export."
        )
    weights = Path(config.get_parsed_content("model_file"))
    network_file = options.network_file or weights.with_suffix(".network.onnx")
    stem = network_file.name.removesuffix(".network.onnx")
    require_writable(files=[int8_file := network_file.with_name(f"{stem}.int8.network.onnx")])
    model_settings = config.get_parsed_content("settings")
    network = OnnxNetwork(network_file, threads=1, settings=model_settings, remedy="Write it first: pyraseg export.")
    inference = None
    protect([network_file, network_file.with_name(f"{stem}.onnx")])
    if (float_path := network_file.with_name(f"{stem}.onnx")).is_file():
        inference = read_config(options.inference or inference_configs(files))
        override(inference, {key: value for key, value in settings.items() if key in inference})

    cases = config.get_parsed_content("cases")
    images = training_images(cases["training"], config.get_parsed_content("train#preprocessing"), options.images)
    require_content(images)

    def bar(layers: Sequence[str]) -> Iterator[str]:
        return iter(tqdm(layers, desc="effect of each layer", unit="layer", disable=None))

    judged = images[: max(1, len(images) // 4)]
    quantized = quantize(network_file, images, judged, measure=options.layers, progress=bar)
    about = {item.key: item.value for item in onnx.load(network_file).metadata_props}
    precision = f"int8, {len(quantized.in_float)} layers in float" if quantized.in_float else "int8"
    described = ir.to_proto(describe(ir.from_proto(quantized.model), {**about, "precision": precision}))

    whole = None if inference is None else whole_path(described, float_path, inference)
    with replacing(int8_file) as temporary:
        onnx.save(described, temporary)
        data = config.get_parsed_content("validate#dataset")
        count = min(options.cases or len(data), len(data))
        some = range(len(data))[:: len(data) // count][:count]
        verdict = judge(
            (data[index] for index in tqdm(some, desc="validation cases", unit="case", disable=None)),
            (network, OnnxNetwork(temporary, threads=1, settings=model_settings, remedy="")),
            config.get_parsed_content("validate#inferer"),
            config.get_parsed_content("validate#postprocessing"),
            config["class_names"],
        )
        if not verdict.passed and not quantized.costs:
            quantized = quantize(network_file, images, judged, measure=True, progress=bar)
        verdict.require(f"{network_file} in int8", told(quantized) if quantized.costs else "")
    written = [int8_file]
    if whole is not None:
        path = network_file.with_name(f"{stem}.int8.onnx")
        with replacing(path) as temporary:
            onnx.save(whole, temporary)
        written.append(path)
    if quantized.costs:
        print(told(quantized))
    sizes = f"{network_file.stat().st_size / 1e6:.1f} MB -> {int8_file.stat().st_size / 1e6:.1f} MB"
    print(f"{verdict}; {sizes}. Written: {', '.join(map(str, written))}")

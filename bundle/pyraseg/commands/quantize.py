# SPDX-License-Identifier: Apache-2.0
"""Quantize a trained model to int8, and keep the result only if it is as good on validation cases.

pyraseg quantize dermoscopy --dataset-dir data/dermoscopy

writes models/dermoscopy.int8.network.onnx and models/dermoscopy.int8.onnx. What they are made of, the float files of
`pyraseg export`, is written first where it is missing, of other weights, or of other settings. Ranges of activations
are measured on what the network is shown of training cases: whole images, slices, or tiles. The gate: on the
validation cases, the mean Dice falls by at most 0.005, and 99.5 % of the pixels keep their class. Otherwise no int8
file is written, and the layers that change most pixels are named (docs/int8.md). Options of the config, such as
`--spacing 2.0`, must repeat those of the training.
"""

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer
from monai.transforms import Compose
from tqdm import tqdm

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.export import float_files, read_metadata, write
from bundle.pyraseg.commands.options import add_configs, split_options
from bundle.pyraseg.commands.places import config_files
from bundle.pyraseg.commands.run import trained_model
from bundle.pyraseg.core import PyrasegError, Structures, file_digest, protect, replacing, require_writable
from bundle.pyraseg.runtime import click_file
from bundle.pyraseg.workflow import override, read_config, regions_of, verbatim

if TYPE_CHECKING:
    import onnx

    from bundle.pyraseg.deployment import Quantized, Recipe, Verdict, VolumeRecipe

#: Layers that a message names.
NAMED = 5


def arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = command_parser("quantize", __doc__)
    add_configs(parser, "train")
    parser.add_argument("--dataset-dir", type=Path, help="data set of the training (default: that of the config)")
    parser.add_argument("--network-file", type=Path, help="float network, taken as it is with the whole path beside it "
                        "(default: that of the weights of the config)")  # fmt: skip
    parser.add_argument("--network-only", action="store_true", help="quantize the network alone")
    parser.add_argument("--inference", type=Path, nargs="+", help="configs of inference (default: by name)")
    parser.add_argument("--images", type=int, default=64, help="number of training images, slices or tiles for "
                        "measuring ranges (default: %(default)s)")  # fmt: skip
    parser.add_argument("--cases", type=int, help="number of validation cases for the gate (default: all)")
    parser.add_argument("--layers", action="store_true", help="print the effect of each layer, even if all can be int8")
    return split_options(parser, argv)


def training_images(
    cases: Sequence[dict[str, str]], preprocessing: Compose, inferer: Inferer, count: int
) -> list[np.ndarray]:
    """Return what the network is shown of randomly drawn training cases, (1, C, W, H[, D]) each.

    Args:
        cases: of the training.
        preprocessing: of the config.
        inferer: which gives the network whole images, slices or tiles.
        count: of what is shown; as many of each case as it takes.
    """
    random = np.random.default_rng(0)
    order = random.permutation(len(cases))[:count]
    of_each = -(-count // len(order))
    images: list[np.ndarray] = []
    for index in tqdm(order, desc="reading training cases", unit="case", disable=None):
        shown = Sample(of_each, random)
        inferer(preprocessing(dict(cases[index]))["image"][None], shown)
        images += shown.kept
    return images[:count]


class Sample:
    """Be a network that keeps some of what it is shown, each with the same chance, and says nothing of it.

    Args:
        count: how many are kept.
        random: decides which.

    Attributes:
        kept: (1, C, W, H[, D]) float32 each.
    """

    def __init__(self, count: int, random: np.random.Generator) -> None:
        self.count, self.random = count, random
        self.kept: list[np.ndarray] = []
        self.seen = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        for image in images.as_subclass(torch.Tensor):
            place = self.seen if self.seen < self.count else int(self.random.integers(self.seen + 1))
            self.seen += 1
            if place < self.count:
                self.kept[place : place + 1] = [image[None].numpy().astype(np.float32)]
        return torch.zeros(len(images), 1, *images.shape[2:])


def inference_configs(configs: Sequence[Path]) -> list[Path]:
    """Return the configs of inference that belong to those of a training."""
    first, *overlays = configs
    return [
        first.with_name("inference.json"),
        *(file.with_name(f"{file.stem}_inference.json") for file in overlays if not file.stem.startswith("train")),
    ]


def stated(path: Path) -> dict[str, str]:
    """Return what an exported file says of itself; nothing where there is none."""
    import onnx

    if not path.is_file():
        return {}
    return {item.key: item.value for item in onnx.load(path, load_external_data=False).metadata_props}


def outdated(path: Path, weights: Path, recipe: str | None = None) -> str:
    """Return why a file is to be exported, in a sentence; nothing where it is of some weights (and of a recipe)."""
    from bundle.pyraseg.transforms import read_temperature

    found = stated(path)
    if not found:
        return f"There is no {path} yet."
    if weights.is_file() and found.get("weights_sha256") != file_digest(weights):
        return f"{path} is of other weights than {weights}."
    if recipe is not None and found.get("recipe") != recipe:
        return f"{path} was exported with other settings than these."
    if recipe is not None and weights.is_file() and float(found["temperature"]) != (read_temperature(weights) or 1.0):
        return f"{path} has another temperature than the one beside {weights}."
    return ""


def export_outdated(
    config: ConfigParser, weights: Path, network_file: Path, path_file: Path | None, about: Mapping[str, Any]
) -> None:
    """Write the float files where they are not what the weights and the config of inference make.

    Args:
        config: of inference.
        weights: their file; where it is not there, files that are there are taken for theirs.
        network_file: the network alone.
        path_file: the whole path; None: it is not wanted.
        about: metadata of the bundle and the task.

    Raises:
        PyrasegError: they cannot be written, or the old whole path has a threshold that the new one would not have.
    """
    reason = outdated(network_file, weights)
    if path_file is not None and not reason:
        reason = outdated(path_file, weights, recipe_of_config(config).text)
    if not reason:
        return
    if path_file is not None and (threshold := stated(path_file).get("threshold")):
        raise PyrasegError(
            f"{reason} The whole path there has the threshold {threshold}, which may not be that of these weights. "
            "Export it first: pyraseg export, with --threshold or without."
        )
    print(reason)
    write(config, weights, network_file, path_file, about=about)


def recipe_of_config(config: ConfigParser) -> "Recipe | VolumeRecipe":
    """Return what happens to an image around the network, by a config of inference."""
    from bundle.pyraseg.deployment import recipe_of

    parts = ("preprocessing", "inferer", "postprocessing", "image_kind")
    return recipe_of(*(config.get_parsed_content(name) for name in parts))


def whole_path(network: "onnx.ModelProto", float_path: Path, config: ConfigParser) -> "onnx.ModelProto":
    """Return the whole path around a network in int8, with the decision and the description of the float one.

    Raises:
        PyrasegError: the float one has another recipe than the config.
    """
    import onnx_ir as ir

    from bundle.pyraseg.deployment import Decision, Recipe, describe, path_model

    about = stated(float_path)
    about["precision"] = next(item.value for item in network.metadata_props if item.key == "precision")
    recipe = recipe_of_config(config)
    if recipe.text != about["recipe"]:
        raise PyrasegError(
            f"The configs of inference preprocess images differently than {float_path}. Give the configs of its "
            "export (--inference), and the same options. Nothing was written."
        )
    model = ir.from_proto(network)
    if isinstance(recipe, Recipe) and recipe.patch_size is None:
        decision = Decision(float(about["temperature"]), float(about["threshold"]) if about["threshold"] else None)
        model = path_model(model, recipe, decision)
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

    from bundle.pyraseg.deployment import (
        OnnxClickNetwork,
        OnnxNetwork,
        describe,
        judge,
        quantize,
        require_content,
        takes_clicks,
    )

    files, root = config_files(options.tasks)
    settings = {"bundle_root": verbatim(root), "device": "cpu", **settings}
    config = read_config(files, settings)
    if options.dataset_dir:
        config["dataset_dir"] = verbatim(options.dataset_dir)
    for_inference = options.inference or inference_configs(files)

    def config_of_inference() -> ConfigParser:
        inference = read_config(for_inference)
        override(inference, {key: value for key, value in settings.items() if key in inference})
        return inference

    weights = trained_model(config)
    network_file, _ = float_files(weights, root)
    network_file = options.network_file or network_file
    stem = network_file.name.removesuffix(".network.onnx")
    beside = network_file.with_name(f"{stem}.onnx")
    float_path = None if options.network_only or (options.network_file and not beside.is_file()) else beside
    if not options.network_file:
        about = read_metadata(for_inference, None)
        export_outdated(config_of_inference(), weights, network_file, float_path, about)
    require_writable(files=[int8_file := network_file.with_name(f"{stem}.int8.network.onnx")])
    model_settings = config.get_parsed_content("settings")
    network = OnnxNetwork(network_file, threads=1, settings=model_settings, remedy="Write it first: pyraseg export.")
    protect([network_file, beside])

    structures = Structures(config["class_names"], regions_of(config))
    cases = config.get_parsed_content("cases")
    inferer = config.get_parsed_content("validate#inferer")
    shown = cases["training"], config.get_parsed_content("train#preprocessing"), inferer
    images = training_images(*shown, options.images)
    require_content(images)

    def bar(layers: Sequence[str]) -> Iterator[str]:
        return iter(tqdm(layers, desc="effect of each layer", unit="layer", disable=None))

    judged = images[: max(1, len(images) // 4)]
    quantized = quantize(network_file, images, judged, measure=options.layers, progress=bar)
    precision = f"int8, {len(quantized.in_float)} layers in float" if quantized.in_float else "int8"
    about = {**stated(network_file), "precision": precision}
    described = ir.to_proto(describe(ir.from_proto(quantized.model), about))

    whole = None if float_path is None else whole_path(described, float_path, config_of_inference())
    refining = click_file(network_file)
    clicks = takes_clicks(network.session)
    with replacing(int8_file) as temporary:
        onnx.save(described, temporary)

        def with_clicks(path: Path) -> OnnxNetwork:
            remedy = "Write it first: pyraseg export."
            regions = structures.overlapping
            return OnnxClickNetwork(
                path, refining, overlapping=regions, threads=1, settings=model_settings, remedy=remedy
            )

        if clicks:
            networks = with_clicks(network_file), with_clicks(temporary)
        else:
            networks = network, OnnxNetwork(temporary, threads=1, settings=model_settings, remedy="")
        data = config.get_parsed_content("validate#dataset")
        count = min(options.cases or len(data), len(data))
        some = range(len(data))[:: len(data) // count][:count]

        def judged_cases(title: str, *, with_truth: bool) -> "Verdict":
            return judge(
                (data[index] for index in tqdm(some, desc=title, unit="case", disable=None)),
                networks,
                inferer,
                config.get_parsed_content("validate#postprocessing"),
                structures.names,
                overlapping=structures.overlapping,
                with_truth=with_truth,
            )

        verdict = judged_cases("validation cases", with_truth=False)
        if not verdict.passed and not quantized.costs:
            quantized = quantize(network_file, images, judged, measure=True, progress=bar)
        verdict.require(f"{network_file} in int8", told(quantized) if quantized.costs else "")
        if clicks:
            clicked = judged_cases("the same, with clicks", with_truth=True)
            clicked.require(f"{network_file} in int8, with clicks,", told(quantized) if quantized.costs else "")
            print(f"After {config['val_clicks']} clicks for each class: {clicked}")
    written = [int8_file]
    if whole is not None:
        path = network_file.with_name(f"{stem}.int8.onnx")
        with replacing(path) as temporary:
            onnx.save(whole, temporary)
        written.append(path)
        if clicks:  # in float: it is small, and the corrections are exact
            with replacing(click_file(path)) as temporary:
                shutil.copyfile(refining, temporary)
            written.append(click_file(path))
    if quantized.costs:
        print(told(quantized))
    sizes = f"{network_file.stat().st_size / 1e6:.1f} MB -> {int8_file.stat().st_size / 1e6:.1f} MB"
    print(f"{verdict}; {sizes}. Written: {', '.join(map(str, written))}")

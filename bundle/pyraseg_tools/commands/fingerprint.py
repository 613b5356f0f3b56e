# SPDX-License-Identifier: Apache-2.0
"""Measure a data set, list unusual cases, and propose settings for its training in a file.

Give the configs and options of the planned training, for example

    pyraseg fingerprint configs/train.json --output OUT --memory 8 \\
        --dataset_dir my_study --class_names "['background','tumor']"

OUT gets report.md, cases.csv, histograms.png, pairs.png and proposal.json. Nothing is applied: read the report, edit
the proposal, and train with --config_file "['configs/train.json','OUT/proposal.json']" and the same options.

Settings are derived from the training part of the split only. Unusual cases are searched in all parts.
"""

import argparse
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from monai.transforms import Compose

from bundle.pyraseg.commands import add_configs, command_parser, config_files, split_options
from bundle.pyraseg.core import PyrasegError, replacing, require_writable
from bundle.pyraseg.data import METHODS, ClassCounts, sum_counts
from bundle.pyraseg.labels import annotated_classes
from bundle.pyraseg.training import USABLE, fitting_batch, peak_of_steps
from bundle.pyraseg.workflow import components, config_text, read_config, verbatim
from bundle.pyraseg_tools.fingerprint import (
    CaseFingerprint,
    Setting,
    class_table,
    measure_cases,
    propose_background_fraction,
    propose_grid,
    propose_weights,
    propose_windows,
    report,
    settings_table,
    suspicious,
    write_cases,
)

MEASURED = (2, 6)  # batch sizes; of one, batch normalization has nothing to normalize


def arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = command_parser("fingerprint", __doc__)
    add_configs(parser, "train")
    parser.add_argument("--output", type=Path, required=True, help="new folder for the report and the proposal")
    parser.add_argument("--memory", type=float, metavar="GB", help="memory of the device; proposes a batch size")
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help="method of class weights (default: %(default)s)"
    )
    parser.add_argument(
        "--max-ratio", type=float, default=10.0, help="largest ratio of class weights (default: %(default)s)"
    )
    parser.add_argument(
        "--modality",
        metavar="CT|MR|PT|...",
        help="modality of images that are no DICOM; CT is in HU (default: HU where the values of a volume show it)",
    )
    return split_options(parser, argv)


def loader(parser: ConfigParser) -> Compose:
    """Return the config's own transforms up to the one that loads the label: nothing is windowed or resampled yet."""
    place = "train#preprocessing#transforms"
    targets = [item["_target_"].rpartition(".")[2] for item in parser[place]]
    if "LoadLabeld" not in targets:
        raise PyrasegError(f"{place} of the config has no LoadLabeld, so the source of its labels is unknown.")
    last = targets.index("LoadLabeld")
    return Compose([parser.get_parsed_content(f"{place}#{index}") for index in range(last + 1)])


def propose(
    parser: ConfigParser, training: Sequence[CaseFingerprint], counts: ClassCounts, options: argparse.Namespace
) -> tuple[dict[str, Setting], list[str]]:
    """Return the settings for knobs that the config uses, and notes on the others."""
    settings, notes = {}, []
    grid = propose_grid(training)
    if any(part["_target_"] == "RandSpatialCropd" for _, part in components(parser["train#augmentation"])):
        notes.append("no `slice_size`: this config sees patches, whose size is a choice between detail and context.")
        grid.pop("slice_size")
    modalities = sorted({case.modality for case in training})
    if all(modalities) and parser["modality"] not in (None, modalities):
        settings["modality"] = Setting(modalities, "that of the training images")
    if parser["windows"] is not None:
        settings["windows"] = propose_windows(training)
    if parser.get("sequences") is not None:
        notes.append("only the first of the `sequences` was measured: choose the `windows` of the others yourself.")
    settings |= grid
    if any(len(case.counts) > 1 for case in training):
        settings["background_fraction"] = propose_background_fraction(training)
    unused = [key for key in settings if parser.get(key) is None]
    notes += [f"no `{key}`: this config has no use for it." for key in unused]
    settings = {key: setting for key, setting in settings.items() if key not in unused}
    settings["loss#weight"] = propose_weights(counts, method=options.method, max_ratio=options.max_ratio)
    if options.memory is None:
        notes.append("no `batch_size`: state the memory of the device that trains with `--memory GB`.")
    else:
        for key, setting in settings.items():
            parser[key] = setting.value
        settings["batch_size"] = propose_batch(parser, options.memory)
    return settings, notes


def propose_batch(parser: ConfigParser, memory: float) -> Setting:
    """Measure training steps of two batch sizes with the proposed settings, and return the batch that fits."""
    if "pretrained" in parser:
        parser["pretrained"] = False  # other weights take no other memory
    device = str(parser.get_parsed_content("device"))
    context = multiprocessing.get_context("spawn")
    peaks = []
    for size in MEASURED:
        with context.Pool(1) as pool:  # a new process each: memory that was used is not always given back
            peaks.append(pool.apply(peak_of_config, (parser.get(), size)))
    batch = fitting_batch(MEASURED, peaks, memory * 2**30)
    measured = " and ".join(f"{peak / 2**30:.2f} GB for {size}" for size, peak in zip(MEASURED, peaks, strict=True))
    return Setting(batch, f"steps on {device} took {measured}; {USABLE:.0%} of {memory:g} GB are planned with")


def peak_of_config(config: dict[str, Any], batch_size: int) -> int:
    """Return the bytes that training steps of a config take, on the device and in the precision that it names."""
    parser = ConfigParser(config)
    amp = parser.get_parsed_content("amp_dtype") if parser.get_parsed_content("amp") else None
    channels = parser.get_parsed_content("network_def#in_channels")
    return peak_of_steps(
        parser.get_parsed_content("network_def"),
        parser.get_parsed_content("loss"),
        image_shape=(batch_size, channels, *parser.get_parsed_content("slice_size")),
        device=parser.get_parsed_content("device"),
        amp_dtype=amp,
    )


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    from bundle.pyraseg_tools.fingerprint import draw_histograms, draw_pairs  # so that --help needs no extra

    if options.output.exists():
        raise PyrasegError(f"{options.output} is there already. Give --output a new folder.")
    require_writable([options.output])
    files, root = config_files(options.tasks)
    # What a model is for is what a fingerprint is to find out: images of any kind are measured.
    parser = read_config(files, {"bundle_root": verbatim(root), **settings})
    for name in ("modality", "body_part", "plane"):
        parser[f"purpose#{name}"] = None
    names = parser.get_parsed_content("class_names")
    load = loader(parser)
    cases = parser.get_parsed_content("cases")
    root = Path(parser.get_parsed_content("dataset_dir")).expanduser().resolve()
    workers = parser.get_parsed_content("num_workers")
    kind = parser["image_kind"]
    if options.modality is not None and kind != "volume":
        raise PyrasegError(f"--modality is for volumes; the config takes images of the kind {kind!r}. Leave it out.")
    measured = measure_cases(
        cases,
        load,
        root=root,
        classes=len(names),
        num_workers=workers,
        image_kind=kind,
        modality=options.modality.upper() if options.modality else None,
    )
    training = [case for case in measured if case.part == "training" and case.size and not case.is_constant]
    if not any(case.foreground for case in training):
        faults = "\n  ".join(dict.fromkeys(case.fault for case in measured if case.fault))
        raise PyrasegError(f"No training case of {root} has a label to learn from. Faults of cases:\n  {faults}")
    odd = suspicious(measured)
    annotated = [np.tile(annotated_classes(case.item, names), (len(case.counts), 1)) for case in training]
    counts = sum_counts(np.concatenate([case.counts for case in training]), names, np.concatenate(annotated))
    settings, notes = propose(parser, training, counts, options)
    with replacing(options.output) as folder:
        folder.mkdir()
        write_cases(folder / "cases.csv", measured, odd, names)
        draw_histograms(folder / "histograms.png", training, counts, settings.get("windows", Setting([], "")).value)
        draw_pairs(folder / "pairs.png", measured, odd, load, image_kind=kind)
        proposal = config_text({key: setting.value for key, setting in settings.items()})
        (folder / "proposal.json").write_text(proposal, encoding="utf-8")
        (folder / "report.md").write_text(report(measured, odd, counts, settings, notes), encoding="utf-8")
    print(class_table(counts), settings_table(settings), *notes, sep="\n")
    print(f"{len(measured)} cases measured, {len(odd)} to look at: {options.output / 'report.md'} and its pictures;")
    print(f"nothing is applied: the proposal is {options.output / 'proposal.json'}")

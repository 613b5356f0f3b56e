# SPDX-License-Identifier: Apache-2.0
"""Measure a data set, list unusual cases, and propose settings for its training in a file.

Give the configs and options of the planned training, for example

    pyraseg fingerprint configs/train.json --output OUT --memory 8 \\
        --dataset_dir my_study --class_names "['background','tumor']"

OUT gets report.md, cases.csv, histograms.png, pairs.png and proposal.json. Nothing is applied: read the report, edit
the proposal, and train with `pyraseg train configs/train.json OUT/proposal.json` and the same options.

For volumes there are two proposals, slices.json and volumes.json (in 3-D); proposal.json is the one to begin with. With
`--memory 8 --minutes 30`, training steps are measured, and patch, batch and length follow from them.

Settings are derived from the training part of the split only. Unusual cases are searched in all parts.
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from monai.transforms import Compose

from bundle.pyraseg.commands import add_configs, command_parser, config_files, home, split_options
from bundle.pyraseg.core import PyrasegError, replacing, require_writable
from bundle.pyraseg.data import METHODS, sum_counts
from bundle.pyraseg.labels import annotated_classes
from bundle.pyraseg.workflow import config_text, read_config, verbatim
from bundle.pyraseg_tools.fingerprint import (
    Budget,
    Proposal,
    Setting,
    Study,
    choose_form,
    class_table,
    measure_cases,
    propose_slices,
    propose_volumes,
    report,
    settings_table,
    suspicious,
    volume_sizes,
    write_cases,
)

#: Names of the files of proposals.
ALONE, SLICES, VOLUMES = "proposal", "slices", "volumes"
#: Settings that inference has in common with training, of those that are proposed for volumes.
OF_INFERENCE = ("modality", "windows", "spacing", "patch_size", "channels")


def arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = command_parser("fingerprint", __doc__)
    add_configs(parser, "train")
    parser.add_argument("--output", type=Path, required=True, help="new folder for the report and the proposal")
    parser.add_argument("--memory", type=float, metavar="GB", help="memory of the device; proposes a batch size")
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="minutes of one thread of the processor, or of a GPU, that the "
        "training may take; proposes its length, with the memory of this machine unless --memory names another",
    )  # fmt: skip
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
    parser: ConfigParser, volumes: ConfigParser | None, study: Study, budget: Budget
) -> tuple[dict[str, Proposal], str]:
    """Return the proposals by the name of their form, the one to begin with first, and why it is the first.

    Args:
        parser: of the planned training.
        volumes: of the same in 3-D, for data that has volumes; None where there is no choice.
        study: the data set.
        budget: what the user names.
    """
    sizes = volume_sizes(study.training) if parser["image_kind"] == "volume" else None
    if parser.get("patch_size") is not None:
        if sizes is None:
            raise PyrasegError("The config sees volumes in 3-D, and not every image is one with patient geometry.")
        return {VOLUMES: propose_volumes(parser, study, budget, sizes)}, ""
    if volumes is None:
        return {ALONE: propose_slices(parser, study, budget)}, ""
    found = {SLICES: propose_slices(parser, study, budget)}
    if sizes is not None:
        found[VOLUMES] = propose_volumes(volumes, study, budget, sizes)
    chosen, reason = choose_form(sizes, found[VOLUMES].patches if VOLUMES in found else None)
    first = dict(sorted(found.items(), key=lambda item: item[0] != chosen))
    return first, f"Begin with **{chosen}**: {reason}."


def write_proposals(folder: Path, proposals: Mapping[str, Proposal]) -> None:
    """Write an overlay for the training of each proposal, for volumes one for inference, and the first as the proposal.

    Args:
        folder: of the report.
        proposals: by the name of their form.
    """
    for form, proposal in proposals.items():
        values = {key: setting.value for key, setting in proposal.settings.items()}
        (folder / f"{form}.json").write_text(config_text(values), encoding="utf-8")
        if form != ALONE:
            shared = {key: value for key, value in values.items() if key in OF_INFERENCE}
            (folder / f"{form}_inference.json").write_text(config_text(shared), encoding="utf-8")
    first = next(iter(proposals))
    if first != ALONE:
        shutil.copyfile(folder / f"{first}.json", folder / f"{ALONE}.json")


def main(argv: list[str] | None = None) -> None:
    options, settings = arguments(argv)
    from bundle.pyraseg_tools.fingerprint import draw_histograms, draw_pairs  # so that --help needs no extra

    if options.output.exists():
        raise PyrasegError(f"{options.output} is there already. Give --output a new folder.")
    require_writable([options.output])
    files, root = config_files(options.tasks)
    # What a model is for is what a fingerprint is to find out: images of any kind are measured.
    settings = {"bundle_root": verbatim(root), **settings}
    parser = read_config(files, settings)
    for name in ("modality", "body_part", "plane"):
        parser[f"purpose#{name}"] = None
    has_choice = parser["image_kind"] == "volume" and parser.get("patch_size") is None
    volumes = read_config([*files, home() / "configs" / "volumes.json"], settings) if has_choice else None
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
    validation = sum(case.part == "validation" for case in measured)
    study = Study(training, validation, counts, options.method, options.max_ratio)
    proposals, choice = propose(parser, volumes, study, Budget(options.memory, options.minutes))
    windows = next(iter(proposals.values())).settings.get("windows", Setting([], "")).value
    with replacing(options.output) as folder:
        folder.mkdir()
        write_cases(folder / "cases.csv", measured, odd, names)
        draw_histograms(folder / "histograms.png", training, counts, windows)
        draw_pairs(folder / "pairs.png", measured, odd, load, image_kind=kind)
        write_proposals(folder, proposals)
        named = {f"{form}.json": proposal for form, proposal in proposals.items()}
        (folder / "report.md").write_text(report(measured, odd, counts, named, choice), encoding="utf-8")
    print(class_table(counts))
    for form, proposal in proposals.items():
        print(f"\n{options.output / form}.json", settings_table(proposal.settings), *proposal.notes, sep="\n")
    print(*_next(options, proposals, choice), sep="\n")
    print(f"{len(measured)} cases measured, {len(odd)} to look at: {options.output / 'report.md'} and its pictures;")
    print(f"nothing is applied: the proposal is {options.output / 'proposal.json'}")


def _next(options: argparse.Namespace, proposals: Mapping[str, Proposal], choice: str) -> list[str]:
    """Return what was chosen, and which commands train it and compare it with the other."""
    if not choice:
        return []
    tasks = "".join(f" {name}" for name in options.tasks)
    lines = ["", choice.replace("**", ""), "Train it, or let a short training of each decide, with the same options:"]
    lines.append(f"  pyraseg train{tasks} {options.output / 'proposal.json'}")
    if len(proposals) > 1:
        files = " ".join(str(options.output / f"{form}.json") for form in (SLICES, VOLUMES))
        of = f" --base{tasks}" if tasks else ""
        lines.append(f"  pyraseg compare {files}{of} --minutes 5")
    return lines

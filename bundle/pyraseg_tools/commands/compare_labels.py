# SPDX-License-Identifier: Apache-2.0
"""Score one set of label maps against another: a second observer against the first, or the output of another program.

pyraseg compare-labels DATA --class-names background vessel --label-pattern "masks_1stHO/{case}.png" \\
    --scored-pattern "masks_2ndHO/{case}.png" --mask-value 255

The cases of one part of the split are scored in the same way as a network in an evaluation, so the figures are
comparable.
"""

import argparse
from pathlib import Path

from monai.transforms import Compose, LoadImaged

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.datalists import SPLITS, load_cases
from bundle.pyraseg.evaluation import CaseScorer, CaseTable, format_summary
from bundle.pyraseg.transforms import LoadLabeld


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("compare-labels", __doc__)
    parser.add_argument("dataset_dir", type=Path, help="folder of the data set")
    parser.add_argument("--class-names", nargs="+", required=True, metavar="NAME", help="all classes, background first")
    parser.add_argument("--label-pattern", required=True, help="ground truth, such as masks_1stHO/{case}.png")
    parser.add_argument("--scored-pattern", required=True, help="label maps to score, such as masks_2ndHO/{case}.png")
    parser.add_argument("--patient-pattern", help="regular expression; its first group is the patient in a case name")
    parser.add_argument("--split", choices=SPLITS, default="test", help="part to score (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: %(default)s)")
    parser.add_argument("--mask-value", type=int, help="value of class 1 in binary masks, usually 255")
    parser.add_argument(
        "--lesion-classes",
        nargs="+",
        default=[],
        metavar="NAME",
        help="classes scored lesion by lesion",
    )
    parser.add_argument(
        "--thin-classes", nargs="+", default=[], metavar="NAME", help="classes compared along their centerlines, too"
    )
    parser.add_argument(
        "--surface-tolerance",
        type=float,
        default=2.0,
        help="mm, tolerance of the surface Dice (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    cases = load_cases(
        options.dataset_dir,
        image_pattern=options.scored_pattern,
        label_pattern=options.label_pattern,
        patient_pattern=options.patient_pattern,
        seed=options.seed,
        class_names=options.class_names,
    )[options.split]
    if not cases:
        raise PyrasegError(f"The data set {options.dataset_dir} has no cases in its part {options.split!r}.")
    load = Compose(
        [
            LoadImaged(
                "image",
                reader="bundle.pyraseg.transforms.MedicalImageReader",
                ensure_channel_first=True,
                expanduser=False,  # a path may say which series is meant
            ),
            LoadLabeld("label", class_names=options.class_names, mask_value=options.mask_value),
        ]
    )
    # Apart from the truth: what is scored may hold classes that the case was not annotated for.
    load_scored = LoadLabeld("scored", class_names=options.class_names, mask_value=options.mask_value)
    scorer = CaseScorer(
        options.class_names,
        options.lesion_classes,
        tolerance=options.surface_tolerance,
        thin_classes=options.thin_classes,
    )
    table = CaseTable(scorer, by=["size"])
    for case in cases:
        item = load(case)
        scored = load_scored({"image": item["image"], "scored": case["image"]})["scored"]
        table.add(case["image"], case, scored, item["label"], item["image"])
    print(f"{options.scored_pattern} against {options.label_pattern}, {len(cases)} cases ({options.split})")
    print(format_summary(table.summary()))

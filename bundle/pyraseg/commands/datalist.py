# SPDX-License-Identifier: Apache-2.0
"""Pair images with labels, and write the data list for training, with a manifest and a summary.

pyraseg datalist data/drawn --patient-pattern "^person_(\\d+)"

writes datalist.json, manifest.json and a summary to the folder.

Pairs are found by two patterns, a dataset.json of nnU-Net or the Decathlon, Pascal VOC, the file names of the ISIC
challenges, folders images and labels (or masks), or as DICOM series with the SEG or RTSTRUCT that refers to them. All
cases of a patient are in one part. A split with the same or nearly the same image in two parts is refused.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.datalists import (
    GROUPINGS,
    LIST,
    MANIFEST,
    SPREADS,
    SUMMARY,
    THRESHOLD,
    check_request,
    collect_cases,
    write_folds,
    write_link,
    write_split,
)
from bundle.pyraseg.labels import DRAWN_ON


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("datalist", __doc__)
    parser.add_argument("dataset_dir", type=Path, help="folder of the data set")
    parser.add_argument("--output-dir", type=Path, help="where to write (default: the folder of the data set)")
    parser.add_argument("--overwrite", action="store_true", help=f"replace an existing {LIST}")
    parser.add_argument("--image-pattern", help="pattern of the images, such as images/{case}.jpg, if no layout fits")
    parser.add_argument("--label-pattern", help="pattern of the labels, such as masks/{case}_segmentation.png")
    patients = parser.add_mutually_exclusive_group()
    patients.add_argument("--patient-pattern", help="regular expression; its first group is the patient in a case name")
    patients.add_argument("--patient-csv", type=Path, help="CSV table with the columns case and patient")
    patients.add_argument(
        "--group-by", choices=GROUPINGS, default="auto",
        help="patients of DICOM: by Patient ID if it is plausible (auto), always by Patient ID, or by study",
    )  # fmt: skip
    parser.add_argument(
        "--annotated-csv", type=Path, metavar="FILE",
        help='CSV table of cases in which only some classes were outlined: columns case (or patient) and classes, such '
        'as "liver; spleen"; in cases that it leaves out all were',
    )  # fmt: skip
    parser.add_argument(
        "--series", default="",
        help="which DICOM series, where there are several: number, description ('portal*') or UID",
    )  # fmt: skip
    parser.add_argument(
        "--select", nargs="+", default=[], metavar="KEYWORD=VALUE",
        help="which slices of a series with several phases or echoes, such as EchoTime=4.6",
    )  # fmt: skip
    parser.add_argument(
        "--drawn-on", "--drawn_on", choices=DRAWN_ON, default=DRAWN_ON[0],
        help="what a SEG or RTSTRUCT must share with its series; the list says so of each case (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--sequences", nargs="+", metavar="NAME=PATTERN",
        help="images of each case, the one that labels are drawn on first: what their series, or the ends of their "
        "files' names, are called, such as t1='T1*MPR*' flair='*FLAIR*'",
    )  # fmt: skip
    parser.add_argument("--allow-missing", action="store_true", help="keep cases that lack a sequence but the first")
    parser.add_argument("--merge-duplicates", action="store_true", help="join patients that share an image into one")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD,
        help="correlation from which two images count as nearly identical (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--together", type=float, nargs="?", const=SPREADS, metavar="SPREADS",
        help="for pictures of unknown patients: keep those that look like frames of one scan in one part, here those "
        "that are more alike than strangers are by so many of their spreads (without a number: %(const)s)",
    )  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--shares", type=float, nargs=3, default=(0.7, 0.15, 0.15), metavar=("TRAINING", "VALIDATION", "TEST"),
        help="fractions of the cases (default: 0.7 0.15 0.15)",
    )  # fmt: skip
    how.add_argument("--folds", type=int, metavar="K", help="write K lists for cross-validation instead")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: %(default)s)")
    parser.add_argument("--label-threshold", type=float, help="value from which a pixel of a blurred mask is class 1")
    parser.add_argument("--unknown-value", type=int, help="value of unlabeled pixels (255 in Pascal VOC)")
    parser.add_argument("--link", type=Path, metavar="FILE", help="write a CSV file from patient numbers to names")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    folder = options.dataset_dir.expanduser().resolve()
    output = options.output_dir.expanduser().resolve() if options.output_dir else folder
    request = {"seed": options.seed, "overwrite": options.overwrite}
    request |= {"shares": options.shares} if options.folds is None else {"folds": options.folds}
    check_request(output, link=options.link, **request)
    data = collect_cases(
        folder,
        image_pattern=options.image_pattern,
        label_pattern=options.label_pattern,
        patient_pattern=options.patient_pattern,
        patient_csv=options.patient_csv,
        annotated_csv=options.annotated_csv,
        group_by=options.group_by,
        merge_duplicates=options.merge_duplicates,
        threshold=options.threshold,
        together=options.together,
        label_threshold=options.label_threshold,
        unknown_value=options.unknown_value,
        series=options.series,
        select=";".join(options.select),
        drawn_on=options.drawn_on,
        sequences=None if options.sequences is None else dict(item.partition("=")[::2] for item in options.sequences),
        allow_missing=options.allow_missing,
    )
    if options.folds is None:
        print(write_split(data, folder, output, **request))
        lists = LIST
    else:
        print(write_folds(data, folder, output, **request))
        lists = f"fold_0 to fold_{options.folds - 1}, each with a {LIST}"
    if options.link:
        write_link(data, options.link)
    print(f"Written to {output}: {lists}, {MANIFEST}, {SUMMARY}{f'; link in {options.link}' if options.link else ''}")

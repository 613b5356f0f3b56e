# SPDX-License-Identifier: Apache-2.0
"""Find images and labels in a folder and write the data list that a training reads, with a manifest and a summary.

pyraseg datalist data/drawn --patient-pattern "^person_(\\d+)"

writes datalist.json, manifest.json and a summary into the folder.

Pairs are found by two patterns, a Decathlon dataset.json, Pascal VOC, the names of the ISIC challenges, folders images
and labels (or masks), or as DICOM series with the SEG or RTSTRUCT that refers to them. Patients stay together. A split
that puts the same or nearly the same image into two parts is refused.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.datalists import (
    GROUPINGS,
    LIST,
    MANIFEST,
    SUMMARY,
    THRESHOLD,
    check_request,
    collect_cases,
    write_folds,
    write_link,
    write_split,
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("datalist", __doc__)
    parser.add_argument("dataset_dir", type=Path, help="folder of the data set")
    parser.add_argument("--output-dir", type=Path, help="where to write (default: the folder of the data set)")
    parser.add_argument("--overwrite", action="store_true", help=f"replace a {LIST} that is there")
    parser.add_argument("--image-pattern", help="such as images/{case}.jpg, where no layout fits")
    parser.add_argument("--label-pattern", help="such as masks/{case}_segmentation.png")
    patients = parser.add_mutually_exclusive_group()
    patients.add_argument("--patient-pattern", help="regular expression whose first group names a case's patient")
    patients.add_argument("--patient-csv", type=Path, help="table with the columns case and patient")
    patients.add_argument(
        "--group-by", choices=GROUPINGS, default="auto",
        help="what tells patients of DICOM apart: Patient ID where it says something (auto), at its word, or the study",
    )  # fmt: skip
    parser.add_argument("--merge-duplicates", action="store_true", help="make one patient of those who share an image")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD,
        help="correlation from which on two images are nearly the same (default: %(default)s)",
    )  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--shares", type=float, nargs=3, default=(0.7, 0.15, 0.15), metavar=("TRAINING", "VALIDATION", "TEST"),
        help="shares of the cases (default: 0.7 0.15 0.15)",
    )  # fmt: skip
    how.add_argument("--folds", type=int, metavar="K", help="write K lists for cross-validation instead")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")
    parser.add_argument("--label-threshold", type=float, help="values of blurred masks from here on are class 1")
    parser.add_argument("--unknown-value", type=int, help="value of pixels without a label (255 in Pascal VOC)")
    parser.add_argument("--link", type=Path, metavar="FILE", help="CSV file of what the patients' numbers stand for")
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
        group_by=options.group_by,
        merge_duplicates=options.merge_duplicates,
        threshold=options.threshold,
        label_threshold=options.label_threshold,
        unknown_value=options.unknown_value,
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

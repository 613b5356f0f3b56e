# SPDX-License-Identifier: Apache-2.0
"""Convert a tree of DICOM files with its labels to a Pascal VOC tree, split by patient.

pyraseg voc STUDY OUT --class-names background liver lesion spleen kidney

Files are grouped into series by UID. Every slice and every frame becomes a picture. SEG and RTSTRUCT objects below the
folder are matched to the series that they refer to. NIfTI and NRRD labels are found by --label-pattern or in a --table.
Pictures have no name, ID, date or UID. A separate file next to the tree links them to their sources.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.datalists import GROUPINGS
from bundle.pyraseg.dicom import Scan, find_series, read_selection, read_wanted
from bundle.pyraseg.labels import DRAWN_ON, open_label
from bundle.pyraseg.transforms import PRESETS, LabelReader, parse_window
from bundle.pyraseg_tools.datasets.voc import (
    FORMATS,
    KEYWORDS,
    Settings,
    plan_stacks,
    read_table,
    require_all,
    write_voc,
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("voc", __doc__)
    parser.add_argument("source", type=Path, help="folder to search for DICOM files, or one file")
    parser.add_argument("target", type=Path, help="the Pascal VOC tree: a new or an empty folder")
    parser.add_argument(
        "--link", type=Path, help="CSV from pictures to patients and UIDs (default: TARGET_link.csv, next to the tree)"
    )
    parser.add_argument(
        "--series", default="", help="convert these series alone: number, description ('portal*') or UID"
    )
    parser.add_argument(
        "--select", nargs="+", default=[], metavar="KEYWORD=VALUE",
        help="which slices of a series with several phases or echoes, such as EchoTime=4.6",
    )  # fmt: skip
    labels = parser.add_argument_group("labels")
    labels.add_argument("--class-names", nargs="+", metavar="NAME", default=[], help="all classes, background first")
    labels.add_argument("--images-only", action="store_true", help="write no masks and no split")
    labels.add_argument(
        "--label-pattern",
        metavar="PATH",
        help="a label relative to the folder of its series, with {folder}, {stem}, {series_uid} and {study_uid}, such "
        "as '../labels/{folder}.nii.gz'",
    )
    labels.add_argument(
        "--table", metavar="CSV", type=Path,
        help="columns series (UID, number, description, or path below SOURCE) and label, patient, select "
        "(AcquisitionNumber=2), drawn_on",
    )  # fmt: skip
    labels.add_argument(
        "--label-names", metavar="JSON", type=Path,
        help="file with what else labels call a class, a code or a value of theirs: "
        '{"liver": ["Leber", ["SCT", "10200004"], 5], "background": ["*"]}',
    )  # fmt: skip
    labels.add_argument(
        "--overlap-order", nargs="+", metavar="NAME", help="classes that may overlap; the later one is kept"
    )
    labels.add_argument("--mask-value", type=int, help="value of class 1 in binary masks, usually 255")
    labels.add_argument("--unknown-value", type=int, help="value of unlabeled pixels; they become 255, as in VOC")
    labels.add_argument(
        "--drawn-on", "--drawn_on", choices=DRAWN_ON, default=DRAWN_ON[0],
        help="what a SEG or RTSTRUCT of the table must share with its series (default: %(default)s)",
    )  # fmt: skip
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--window", nargs="+", metavar="WINDOW", default=["header"],
        help=f"one for gray or three for RGB: header, header:1, {', '.join(PRESETS)}, center=40,width=400[,function=F] "
        "or percentiles=1,99 (default: header)",
    )  # fmt: skip
    pictures.add_argument("--fallback", metavar="WINDOW", help="window for series without one in the header")
    pictures.add_argument(
        "--format", choices=FORMATS, default="jpg",
        help="jpg and png have 8 bits; png16 keeps the values, without a window (default: %(default)s)",
    )  # fmt: skip
    pictures.add_argument("--square-pixels", action="store_true", help="resample pictures with non-square pixels")
    split = parser.add_argument_group("split")
    split.add_argument(
        "--group-by", choices=GROUPINGS, default="auto",
        help="patients: by Patient ID if it is plausible (auto), always by Patient ID, or by study",
    )  # fmt: skip
    split.add_argument(
        "--split", nargs=3, type=float, default=[0.7, 0.15, 0.15], metavar="SHARE",
        help="fractions of the patients in train, val and test (default: 0.7 0.15 0.15)",
    )  # fmt: skip
    split.add_argument("--seed", type=int, default=0, help="seed of split and patient numbers (default: 0)")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(8, os.cpu_count() or 1),
        help="processes, one series each",
    )
    return parser.parse_args(argv)


def window(text: str) -> str | dict[str, object]:
    """Return the item of `Windowd` that a window on the command line stands for."""
    if "=" not in text:
        parse_window(text)
        return text
    try:
        if text.startswith("percentiles="):
            item: dict[str, Any] = {
                "percentiles": [float(value) for value in text.removeprefix("percentiles=").split(",")]
            }
        else:
            parts = (part.partition("=") for part in text.split(","))
            item = {name: value if name == "function" else float(value) for name, _, value in parts}
        parse_window(item)
    except ValueError as error:  # a PyrasegError, in the words of a config, or what is no number
        raise PyrasegError(
            f"The window {text!r} is not understood. Write center=40,width=400 or percentiles=1,99."
        ) from error
    return item


def label_reader(options: argparse.Namespace) -> LabelReader | None:
    """Return what reads the labels, or None where there are no classes."""
    names = None
    if options.label_names is not None:
        try:
            names = json.loads(options.label_names.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PyrasegError(f"--label-names {options.label_names} cannot be read as JSON: {error}.") from error
        if not isinstance(names, dict):
            raise PyrasegError(f'--label-names {options.label_names} holds no mapping {{"class": [...]}}.')
    if not options.class_names:
        return None
    return LabelReader(
        class_names=options.class_names,
        label_names=names,
        overlap_order=options.overlap_order,
        mask_value=options.mask_value,
        unknown_value=options.unknown_value,
        drawn_on=options.drawn_on,
    )


def require_classes(options: argparse.Namespace, scan: Scan) -> None:
    """Raise PyrasegError unless it is clear what becomes of the labels."""
    if bool(options.class_names) != options.images_only:
        return
    if options.images_only:
        raise PyrasegError("--images-only writes no masks, so --class-names has no effect. Leave one of them out.")
    objects = scan.label_objects
    names = sorted({region.name for path in objects for region in open_label(path).regions.values()})
    found = f"{len(objects)} SEG and RTSTRUCT objects, with {names}" if objects else "no SEG and no RTSTRUCT"
    raise PyrasegError(
        f"Name the classes with --class-names, background first, or write no masks with --images-only. Found: {found}."
    )


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    if min(options.workers, options.seed) < 0:
        raise PyrasegError("--workers and --seed are 0 or more.")
    source, target = options.source.expanduser().resolve(), options.target.expanduser().resolve()
    link = options.link or target.with_name(f"{target.name}_link.csv")
    settings = Settings(
        windows=[window(text) for text in options.window],
        fallback=None if options.fallback is None else window(options.fallback),
        format=options.format,
        square=options.square_pixels,
        labels=label_reader(options),
    )
    table = [] if options.table is None else read_table(options.table)
    select = read_selection(options.select)
    scan = find_series(source, keywords=KEYWORDS)
    require_classes(options, scan)
    plan = plan_stacks(
        scan,
        with_labels=not options.images_only,
        label_pattern=options.label_pattern,
        table=table,
        group_by=options.group_by,
        seed=options.seed,
        series=read_wanted(options.series),
        select=select,
    )
    skipped = ", ".join(f"{count} {reason}" for reason, count in scan.skipped.items())
    labeled = sum(bool(stack.labels) for stack in plan.stacks)
    if not labeled and not options.images_only:
        raise PyrasegError(
            f"None of the {len(plan.stacks)} series below {source} has a label: no SEG or RTSTRUCT refers to one, and "
            "neither --label-pattern nor --table finds a file. Correct them, or write no masks with --images-only."
        )
    print(f"{source}: {len(plan.stacks)} series, {labeled} of them with a label; not images: {skipped or 'none'}")
    for orphan in plan.orphans:
        print(f"The label {orphan} refers to no series in this folder; it is left out.")
    result = write_voc(
        target, link, plan, settings, split_shares=options.split, seed=options.seed, num_workers=options.workers
    )
    for warning in result.warnings:
        print(warning)
    parts = ", ".join(f"{count} {part}" for part, count in result.parts.items())
    print(
        f"Wrote {result.images} pictures of {result.patients} patients to {target} (with masks: {parts}) and the link "
        f"to their sources to {link}. Store it separately."
    )
    require_all(result)

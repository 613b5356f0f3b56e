# SPDX-License-Identifier: Apache-2.0
"""Store whether a person accepts, amends or rejects a result, and show it over time.

pyraseg review result_seg.dcm --images SERIES --accept --reviewer radiologist
pyraseg review result_seg.dcm --images SERIES --amended corrected_seg.dcm --reviewer radiologist
pyraseg review --report runs/reviews

A result is the DICOM SEG that a model made. Reviews are added to a file, which holds the scanner and UIDs, but nothing
that names a patient. The report is reviews.html and reviews.csv; with an alarm, the exit code is 1.
"""

import argparse
import os
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import find_series, read_series
from bundle.pyraseg.labels import ImageGrid, ImageUids, images_of, is_automatic, references_of
from bundle.pyraseg_tools.review import (
    ReviewLog,
    Rule,
    are_equal,
    compare_segmentations,
    decide,
    latest,
    read_result,
)

#: The environment variable that names who reviews.
REVIEWER = "PYRASEG_REVIEWER"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("review", __doc__)
    parser.add_argument("result", type=Path, nargs="?", help="DICOM SEG that a model made")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="folder with the series that it was made of")
    decision = parser.add_mutually_exclusive_group(required=True)
    decision.add_argument("--accept", action="store_true", help="it is good as it is")
    decision.add_argument("--reject", action="store_true", help="it is of no use")
    decision.add_argument("--amended", type=Path, metavar="SEG", help="DICOM SEG of a person that takes its place")
    decision.add_argument("--report", type=Path, dest="output", metavar="DIR", help="write the report of all reviews")
    parser.add_argument("--reviewer", metavar="NAME",
                        help=f"user name or role of who decides (default: {REVIEWER} in the environment)")  # fmt: skip
    parser.add_argument("--reviews", type=Path, default=Path("runs/reviews.jsonl"), metavar="FILE",
                        help="file of the reviews; that of a label server is runs/label/reviews.jsonl (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument("--first", type=int, default=50, metavar="N",
                        help="alarm: results at the beginning to compare with (default: %(default)s)")  # fmt: skip
    parser.add_argument("--last", type=int, default=20, metavar="N",
                        help="alarm: results at the end to compare (default: %(default)s)")  # fmt: skip
    parser.add_argument("--level", type=float, default=0.05,
                        help="alarm: chance of a false one at each report (default: %(default)s)")  # fmt: skip
    parser.add_argument("--least-dice", type=float, metavar="DICE",
                        help="alarm: limit of the mean Dice of corrections (default: none)")  # fmt: skip
    options = parser.parse_args(argv)
    if options.output is None and (options.result is None or options.images is None):
        parser.error("a review needs the RESULT and --images")
    if options.output is not None and options.result is not None:
        parser.error("--report is of all reviews: leave out the RESULT")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return report(options) if options.output is not None else review(options)


def report(options: argparse.Namespace) -> int:
    from bundle.pyraseg_tools.review import write_review_report  # its charts need an extra, which a review does not

    rule = Rule(first=options.first, last=options.last, level=options.level, least_dice=options.least_dice)
    if not options.reviews.is_file():
        raise PyrasegError(f"There is no file of reviews {options.reviews}. Give it as --reviews FILE.")
    found = latest(ReviewLog(options.reviews).read())
    judgments = write_review_report(found, options.output, rule=rule)
    for one in judgments:
        print(f"{'ALARM: ' if one.rings else ''}{one.text}")
    print(f"The report of {len(found)} results is {options.output / 'reviews.html'}, its table reviews.csv")
    return int(any(one.rings for one in judgments))


def review(options: argparse.Namespace) -> int:
    """Add one review; an amended result whose correction is equal to it is an accepted one."""
    reviewer = options.reviewer or os.environ.get(REVIEWER)
    if not reviewer:
        raise PyrasegError(f"Nobody is named who decides. Give a user name or a role: --reviewer NAME, or {REVIEWER}.")
    result, header = read_result(options.result)
    image, grid = source_of(options.images, header)
    decision, correction, dice = "accepted" if options.accept else "rejected", "", {}
    if options.amended is not None:
        correction, dice = compared(options.result, options.amended, grid)
        decision = "accepted" if are_equal(dice) else "amended"
    made = decide(decision, result, image, reviewer, correction=correction, dice=dice)
    ReviewLog(options.reviews).add(made)
    told = ", ".join(f"{name} {value:.3f}" for name, value in made.dice.items())
    print(f"{decision}: a result of {made.model}{f'; Dice {told}' if told else ''}. Added to {options.reviews}")
    return 0


def source_of(folder: Path, header: Dataset) -> tuple[Dataset, ImageGrid]:
    """Return the header of an image that a result was made of, and the grid of the series."""
    series = find_series(folder).series
    places = images_of(references_of(header), [ImageUids.of_images(one.headers) for one in series])
    if len(places) != 1:
        raise PyrasegError(
            f"The result was made of {len(places) or 'none'} of the {len(series)} series in {folder}. Give the folder "
            "of the series that it refers to."
        )
    chosen = series[places[0]]
    image = read_series(folder, series=chosen.uid)
    return pydicom.dcmread(chosen.files[0], force=True, stop_before_pixels=True), ImageGrid.of(image)


def compared(result: Path, correction: Path, grid: ImageGrid) -> tuple[str, dict[str, float]]:
    """Return the SOP Instance UID of a correction, and the Dice of each structure."""
    dice = compare_segmentations(result, correction, grid)
    header = pydicom.dcmread(correction, stop_before_pixels=True)
    if is_automatic(header):
        raise PyrasegError(f"{correction} was made by a program alone. A correction is the segmentation of a person.")
    return str(header.SOPInstanceUID), dice

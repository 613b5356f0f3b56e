# SPDX-License-Identifier: Apache-2.0
"""Check the split of a data set for leaks: a patient, or an identical or nearly identical image, in two of its parts.

pyraseg check data/drawn

checks the split that training would use: the datalist.json of the folder or, without one, the pairs and the random
split of these options. If a manifest.json is next to the list, the files are compared with its hashes.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.core import PyrasegError, first_image
from bundle.pyraseg.datalists import MANIFEST, THRESHOLD, changed_files, find_duplicates, load_cases, refuse_duplicates


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("check", __doc__)
    parser.add_argument("dataset_dir", type=Path, help="folder of the data set")
    parser.add_argument("--image-pattern", default="images/{case}", help="images without a list (default: %(default)s)")
    parser.add_argument("--label-pattern", default="labels/{case}", help="labels without a list (default: %(default)s)")
    parser.add_argument("--patient-pattern", help="regular expression; its first group is the patient in a case name")
    parser.add_argument("--seed", type=int, default=0, help="seed of a split without a list (default: %(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD,
        help="correlation from which two images count as nearly identical (default: %(default)s)",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    folder = options.dataset_dir.expanduser().resolve()
    cases = load_cases(
        folder,
        image_pattern=options.image_pattern,
        label_pattern=options.label_pattern,
        patient_pattern=options.patient_pattern,
        seed=options.seed,
    )
    manifest = folder / MANIFEST
    changed = changed_files(manifest) if manifest.is_file() else []
    if changed:
        named = "\n".join(f"  {line}" for line in changed[:10])
        raise PyrasegError(
            f"{len(changed)} files differ from {manifest}:\n{named}\nRestore them, or make the list again."
        )
    images = [first_image(item["image"]) for items in cases.values() for item in items]
    duplicates = find_duplicates(images, threshold=options.threshold)
    refuse_duplicates(cases, duplicates, folder, remedy="Make the list again with `pyraseg datalist`.")
    print(
        f"No leak in {folder}: {len(images)} images, {len(duplicates)} pairs the same or nearly so, none in two parts; "
        f"{'every file is as its manifest says' if manifest.is_file() else 'no manifest'}"
    )

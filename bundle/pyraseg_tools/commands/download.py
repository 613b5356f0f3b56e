# SPDX-License-Identifier: Apache-2.0
"""Download a public data set, check it, unpack it safely and write its data list.

pyraseg download spleen

An interrupted download continues where it stopped. The archives are kept. The folder of the set is created completely
or not at all. Its SOURCE.txt states the source, the license and what to cite.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands import command_parser, home
from bundle.pyraseg.core import config_option, task_files
from bundle.pyraseg.datalists import LIST, SPREADS, THRESHOLD, collect_cases, write_split
from bundle.pyraseg_tools.datasets.public import RECIPES, prepare


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    sets = "\n".join(
        f"  {name:11} {recipe.title}\n{'':13} license: {recipe.license}" for name, recipe in RECIPES.items()
    )
    parser = command_parser("download", f"{__doc__}\nsets:\n{sets}")
    parser.add_argument("set", choices=RECIPES, help="name of the set")
    parser.add_argument("--output-dir", type=Path, help="folder of the data set (default: data/SET)")
    parser.add_argument(
        "--download-dir",
        type=Path,
        default=Path("data/downloads"),
        help="folder of archives (default: %(default)s)",
    )
    parser.add_argument("--mirror", metavar="URL", help="folder on another server with the same archives")
    parser.add_argument("--masks", type=Path, help="archive or folder of masks, or of a set that must be given")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    recipe = RECIPES[options.set]
    folder = (options.output_dir or Path("data") / options.set).expanduser().resolve()
    downloads = options.download_dir.expanduser().resolve()
    prepare(recipe, folder, downloads, mirror=options.mirror, masks=options.masks)
    if not (folder / LIST).exists():
        image_pattern, label_pattern = recipe.patterns or (None, None)
        data = collect_cases(
            folder,
            image_pattern=image_pattern,
            label_pattern=label_pattern,
            patient_pattern=recipe.patient_pattern,
            threshold=THRESHOLD,
            together=SPREADS if recipe.together else None,
        )
        print(write_split(data, folder, folder, shares=(0.7, 0.15, 0.15), seed=options.seed))
    print(f"{recipe.title} is in {folder}, license: {recipe.license}. Train on it:")
    overlay = config_option(task_files(home() / "configs", "train", recipe.task))
    print(f"python -m monai.bundle run training --config_file {overlay} --dataset_dir {folder}")

# SPDX-License-Identifier: Apache-2.0
"""Count the pixels of each class in a data set and print class weights for the loss.

The counts are taken on the grid of the labels as stored, before any resampling, over one part of the split.
"""

import argparse
import json
import logging
from pathlib import Path

from monai.transforms import Compose, LoadImaged

from bundle.pyraseg.data.class_statistics import METHODS, ClassCounts, class_weights, count_pixels
from bundle.pyraseg.data.datalist import SPLITS, load_cases
from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.transforms.label import LoadLabeld
from bundle.pyraseg.workflow.console import plain_console


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path, help="folder of the data set, or the datalist.json in it")
    parser.add_argument("--class-names", nargs="+", required=True, metavar="NAME", help="all classes, background first")
    parser.add_argument("--config", type=Path, help="JSON config whose label_names and overlap_order the labels follow")
    parser.add_argument("--split", choices=SPLITS, default="training", help="part to count (default: %(default)s)")
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help="of the line to paste (default: %(default)s)"
    )
    parser.add_argument("--max-ratio", type=float, help="bound of the largest weight over the smallest (default: none)")
    parser.add_argument(
        "--spatial-dims", type=int, choices=(2, 3), default=2,
        help="what counts as an image for the median frequency: 2 for slices, 3 for volumes (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--image-pattern", default="images/{case}", help="images without a list (default: %(default)s)")
    parser.add_argument("--label-pattern", default="labels/{case}", help="their labels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split without a list (default: %(default)s)")
    parser.add_argument("--mask-value", type=int, help="value of binary masks that stands for class 1, usually 255")
    parser.add_argument("--threshold", type=float, help="values of blurred masks from here on are class 1")
    return parser.parse_args(argv)


def label_options(config: Path | None) -> dict:
    """Return what a config says of the names in labels."""
    if config is None:
        return {}
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        return {name: content[name] for name in ("label_names", "overlap_order") if content.get(name)}
    except (OSError, ValueError, AttributeError) as error:
        raise PyrasegError(f"{config} cannot be read as a JSON config: {error}.") from error


def table(counts: ClassCounts, weights: dict[str, list[float]]) -> str:
    """Return one line a class: pixels, share, images that hold it, and the weight by each method."""
    wide = max(len("class"), *(len(name) for name in counts.class_names))
    lines = [
        f"{'class':{wide}}  {'pixels':>14}  {'share':>9}  {'images':>7}  " + "  ".join(f"{m:>17}" for m in weights)
    ]
    for index, name in enumerate(counts.class_names):
        pixels = counts.pixels[index]
        values = "  ".join(f"{weights[method][index]:17.4g}" for method in weights)
        share = f"{pixels / counts.pixels.sum():9.4%}"
        lines.append(f"{name:{wide}}  {pixels:14,}  {share}  {counts.images[index]:7,}  {values}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    plain_console()
    logging.getLogger("monai").setLevel(logging.ERROR)  # LoadImage tells of readers that are not used
    options = arguments(argv)
    folder = options.dataset_dir.parent if options.dataset_dir.name == "datalist.json" else options.dataset_dir
    cases = load_cases(
        folder, image_pattern=options.image_pattern, label_pattern=options.label_pattern, seed=options.seed
    )[options.split]
    if not cases:
        raise PyrasegError(f"The data set {folder} has no cases in its part {options.split!r}.")
    load = Compose(
        [
            LoadImaged(
                "image", reader="bundle.pyraseg.transforms.reader.MedicalImageReader", ensure_channel_first=True
            ),
            LoadLabeld(
                "label",
                class_names=options.class_names,
                mask_value=options.mask_value,
                threshold=options.threshold,
                **label_options(options.config),
            ),
        ]
    )
    counts = count_pixels(cases, load, class_names=options.class_names, spatial_dims=options.spatial_dims)
    weights = {method: class_weights(counts, method=method, max_ratio=options.max_ratio) for method in METHODS}
    print(f"{len(cases)} cases of {folder} ({options.split}); the weights of each method have mean 1")
    print(table(counts, weights))
    for name in counts.absent:
        print(f"The class {name!r} is absent: it has the weight of the rarest class that is present.")
    print(f'Paste into "loss" of the config ({options.method}):')
    print(f'"weight": {json.dumps([float(f"{weight:.4g}") for weight in weights[options.method]])}')


if __name__ == "__main__":
    main()

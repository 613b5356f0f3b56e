# SPDX-License-Identifier: Apache-2.0
"""List the photographs that are nearly the same as one in another part of the split that every network was trained on.

ISIC names no patients, so a random split cannot keep two photographs of one lesion together. Run
``python -m benchmarks.dermoscopy.leaks --dataset-dir DIR``.
"""

import argparse
import json
from pathlib import Path

from benchmarks.dermoscopy.latency import RESULTS
from bundle.pyraseg.datalists import THRESHOLD, find_duplicates, leaks, load_cases
from bundle.pyraseg.workflow import plain_console


def main() -> None:
    plain_console()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=RESULTS / "leaks.json")
    given = parser.parse_args()
    cases = load_cases(given.dataset_dir, label_pattern="masks/{case}_segmentation.png")
    duplicates = find_duplicates([item["image"] for items in cases.values() for item in items])
    pairs = [
        {"images": {Path(image).stem: part for part, image in ends}, "correlation": round(pair.score, 3)}
        for *ends, pair in leaks(cases, duplicates)
    ]
    report = {"threshold": THRESHOLD, "pairs": pairs}
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{len(pairs)} pairs lie in different parts: {given.output}")


if __name__ == "__main__":
    main()

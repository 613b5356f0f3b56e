# SPDX-License-Identifier: Apache-2.0
"""Try what `pyraseg archive` promises, and write it to benchmarks/results/archive.

python -m benchmarks.archive once      300 series the three ways, with kills and failures
python -m benchmarks.archive speed     one worker, two workers, and the runtime alone
python -m benchmarks.archive million   a listing of a million series, made up, in table and journal

The first needs Orthanc with its DICOMweb plug-in (Debian: orthanc, orthanc-dicomweb).
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.archive import million, once, speed
from benchmarks.archive.study import write_archive
from benchmarks.networks import processor
from bundle.pyraseg.core import write_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "archive"
WEIGHTS = ROOT / "models" / "phantom.pt"
#: Share of the requests to S3 that fail, and kills, of each way.
SHARE = 0.05
KILLS = {
    "plain": {"worker": 0, "driver": 0},
    "folder": {"worker": 50, "driver": 0},
    "s3": {"worker": 10, "driver": 10},
    "orthanc": {"worker": 5, "driver": 2},
}
PACKAGES = ("ray", "obstore", "moto", "onnxruntime", "pyarrow", "highdicom")


def model_of(folder: Path) -> Path:
    """Return the included model of the phantom, exported."""
    words = ["export", "configs/inference.json", "--model-file", str(WEIGHTS), "--output-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "bundle.pyraseg", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return next(path for path in folder.glob("*.onnx") if ".network" not in path.name)


def truths_of(images: Path, model: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Return what `inferring` finds with PyTorch, and with the exported network in ONNX Runtime."""
    weights = ["--model_file", str(WEIGHTS)]
    network = ["--onnx_file", str(model.with_suffix(".network.onnx"))]
    both = "['configs/inference.json','configs/inference_onnx.json']"
    return {
        "inferring": once.expected(images, ["--config_file", "configs/inference.json", *weights], folder / "inferring"),
        "inferring in ONNX Runtime": once.expected(
            images, ["--config_file", both, *weights, *network], folder / "inferring_onnx"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("once", "speed", "million"))
    parser.add_argument(
        "--series", type=int, default=300, help="of the archive that is done once (default: %(default)s)"
    )
    parser.add_argument("--ways", nargs="+", default=list(KILLS), choices=list(KILLS))
    parser.add_argument("--folder", type=Path, help="of the archive, which is kept (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        about = {"processor": processor(), "versions": {name: version(name) for name in PACKAGES}}
        if options.what == "million":
            write_json(RESULTS / "million.json", {**about, **million.measured(folder)})
            return
        model = next((folder / "model").glob("phantom.onnx"), None) or model_of(folder / "model")
        if options.what == "speed":
            write_json(RESULTS / "speed.json", {**about, **speed.measured(folder, model)})
            return
        images = folder / "images"
        listed = folder / "series.json"  # of an archive that was kept
        series = json.loads(listed.read_text()) if listed.exists() else write_archive(images, options.series)
        write_json(listed, series)
        broken = {name: len(uids) for name, uids in series.items() if name != "good"}
        made = {"series made": options.series, "broken": broken}
        truths = truths_of(images, model, folder)
        print({name: len(truth) for name, truth in truths.items()}, flush=True)
        roads = {"s3": partial(once.by_s3, share=SHARE), "orthanc": once.by_orthanc}
        for way in options.ways:
            shutil.rmtree(folder / way, ignore_errors=True)
            (folder / way).mkdir()
            with roads.get(way, once.by_folder)(images, folder / way) as ready:
                trial = once.Trial(KILLS[way], random.Random(0))
                found = once.tried(ready, model, folder / way, truths, series["good"], trial)
            write_json(RESULTS / f"once_{way}.json", {**about, **made, **found})
            print(way, found, flush=True)


if __name__ == "__main__":
    main()

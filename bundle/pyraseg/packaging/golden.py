# SPDX-License-Identifier: Apache-2.0
"""Run an unpacked package on its made-up image: shapes, preprocessing and prediction, as they were when it was made.

This file is a program that imports nothing of pyraseg itself: `run_golden` starts it in a process of its own, in which
the components are those of the package. Parsing the package's configs runs its code, so its sums, and its signature,
come first.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

#: How far another processor or another version of a library may lead: of the values shown to the network (they span
#: 2), of the scores (in their standard deviations), and the share of pixels that change their class.
IMAGE_ATOL, SCORE_ATOL, LABEL_SHARE = 1e-3, 1e-2, 1e-3
SAMPLES = 20_000


def run_golden(action: str, folder: Path) -> str | None:
    """Record what a package gives, or check it; return what is wrong, in words, or None.

    Args:
        action: "record" writes `golden/expected.npz`, "check" compares with it.
        folder: the unpacked package.
    """
    own = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}
    own["OMP_NUM_THREADS"] = "1"  # sums of floats depend on how they are shared out
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | own
    command = [sys.executable, "-P", __file__, action, str(folder)]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return None
    told = [line for line in run.stderr.strip().splitlines() if line.strip()]
    return told[-1] if told else f"its code ended with {run.returncode}"


def main(action: str, folder: Path) -> None:
    from monai.bundle import ConfigParser, verify_net_in_out

    import bundle.pyraseg

    if not Path(bundle.pyraseg.__file__).is_relative_to(folder):
        raise SystemExit(f"another pyraseg, {bundle.pyraseg.__file__}, hides that of the package")
    configs = folder / "configs"
    try:
        verify_net_in_out(
            "network_def", str(configs / "metadata.json"), str(configs / "inference.json"), device="cpu", n=1
        )
    except Exception as error:
        raise SystemExit(f"the network does not take or give what metadata.json says: {error}") from error
    parsers = {}
    for name in ("inference", "train"):
        parsers[name] = ConfigParser(ConfigParser.load_config_file(configs / f"{name}.json"))
        parsers[name].update({"bundle_root": str(folder), "device": "cpu"})
    found = predict(parsers["inference"], folder)
    (image,) = (folder / "golden").glob("input.*")
    (label,) = (folder / "golden").glob("label.*")
    shown = parsers["train"].get_parsed_content("train#preprocessing")({"image": str(image), "label": str(label)})
    compare(
        "training shows the network another image than inference", sample(shown["image"]), found["image"], IMAGE_ATOL
    )
    if action == "record":
        np.savez(folder / "golden" / "expected.npz", allow_pickle=False, **found)
        return
    expected = np.load(folder / "golden" / "expected.npz", allow_pickle=False)
    compare("preprocessing gives another image", found["image"], expected["image"], IMAGE_ATOL)
    compare(
        "the network gives other scores", found["scores"], expected["scores"], SCORE_ATOL * expected["scores"].std()
    )
    if found["labels"].shape != expected["labels"].shape:
        raise SystemExit(f"the labels have the shape {found['labels'].shape}, not {expected['labels'].shape}")
    differing = np.mean(found["labels"] != expected["labels"])
    if differing > LABEL_SHARE:
        raise SystemExit(f"{differing:.2%} of the pixels have another label than when the package was made")


def predict(parser, folder: Path) -> dict[str, np.ndarray]:
    """Return what inference makes of the made-up image: samples of what the network is shown and gives; the labels."""
    import torch

    (path,) = (folder / "golden").glob("input.*")
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def").eval()
    try:
        network.load_state_dict(torch.load(folder / "models" / "model.pt", map_location="cpu", weights_only=True))
    except RuntimeError as error:  # it lists every name that does not fit
        raise SystemExit("the weights are not those of the network of configs/inference.json") from error
    item = parser.get_parsed_content("preprocessing")({"image": str(path)})
    with torch.no_grad():
        item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], network)[0]
    found = {"image": sample(item["image"]), "scores": sample(item["pred"])}
    if not all(np.isfinite(value).all() for value in found.values()):
        raise SystemExit("the network is shown, or gives, values that are NaN or infinite")
    labels = np.asarray(parser.get_parsed_content("postprocessing")(item)["pred"])
    return found | {"labels": labels.astype(np.uint8)}


def sample(image) -> np.ndarray:
    """Return the shape of an array and values of it at regular steps, as one vector, float32."""
    array = np.asarray(image, dtype=np.float32)
    step = -(-array.size // SAMPLES) | 1  # odd, so that it does not stay in one column
    return np.concatenate([array.shape, array.ravel()[::step]]).astype(np.float32)


def compare(what: str, found: np.ndarray, expected: np.ndarray, atol: float) -> None:
    if found.shape != expected.shape:
        raise SystemExit(f"{what}: it has another size")
    difference = float(np.abs(found - expected).max())
    if not difference <= atol:
        raise SystemExit(f"{what}: values differ by up to {difference:.3g}, more than {atol:.3g}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())

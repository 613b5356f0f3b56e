# SPDX-License-Identifier: Apache-2.0
"""Federated learning: train at sites that share weights but no images, on this machine (NVFlare's simulator).

    pyraseg federation --rounds 2 --output_dir runs/federation

writes a phantom study for each of two sites and trains on them. With `--datasets A B`, the sites have their own data
sets. Options of the config, `--key value`, apply at all sites. The model is OUTPUT_DIR/model.pt. The log of each site
is in OUTPUT_DIR/SITE/.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from bundle.pyraseg.commands import command_parser, home, split_options
from bundle.pyraseg.core import PyrasegError, held
from bundle.pyraseg.training import save_model
from bundle.pyraseg.workflow import read_config, verbatim
from bundle.pyraseg_tools.datasets.phantom import write_phantom_study

CONFIGS = ["configs/train.json", "configs/federated.json"]
#: What the simulated federation is called, and so its folder in NVFlare's workspace.
NAME = "pyraseg"


def write_sites(folder: Path, datasets: list[Path | None], settings: dict[str, Any]) -> dict[str, Path]:
    """Write the overlay of each site and, where there are no data sets, a phantom study; return the overlays by site.

    Args:
        folder: each site has a folder in it, named after the site.
        datasets: one a site; None asks for a phantom study.
        settings: what all sites set.
    """
    overlays = {}
    for number, dataset in enumerate(datasets, start=1):
        site = folder / f"site-{number}"
        site.mkdir(parents=True, exist_ok=True)
        if dataset is None:
            dataset = site / "study"
            if not dataset.exists():
                print(f"Writing a phantom study for site-{number} ...")
                write_phantom_study(dataset, seed=number, patients=8)
        paths = {"dataset_dir": dataset, "output_dir": site, "cache_dir": site / "cache"}
        content = {**settings, **{key: verbatim(path) for key, path in paths.items()}}
        overlays[site.name] = site / "site.json"
        overlays[site.name].write_text(json.dumps(content, indent=4))
    return overlays


def simulate(folder: Path, overlays: dict[str, Path], *, rounds: int) -> Path:
    """Run the federation; return the checkpoint that the server has written last."""
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.recipe.sim_env import SimEnv
    from nvflare.recipe.utils import set_per_site_config

    network = read_config([*files(), *overlays.values()]).get_parsed_content("network_def", instantiate=False)
    recipe = FedAvgRecipe(
        name=NAME,
        model={"class_path": network.resolve_module_name(), "args": network.resolve_args()},
        min_clients=len(overlays),
        num_rounds=rounds,
        train_script=str(Path(__file__).with_name("federated_site.py")),
        key_metric="val_mean_dice",
    )
    arguments = {site: {"train_args": f"--bundle_root {home()} --site {path}"} for site, path in overlays.items()}
    set_per_site_config(recipe, arguments)
    workspace = folder / "nvflare"
    shutil.rmtree(workspace, ignore_errors=True)
    recipe.execute(SimEnv(clients=list(overlays), workspace_root=str(workspace)))
    (written,) = workspace.rglob("FL_global_model.pt")
    return written


def files() -> list[Path]:
    return [home() / config for config in CONFIGS]


def arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = command_parser("federation", __doc__)
    parser.add_argument("--rounds", type=int, default=4, help="number of averages of the weights")
    parser.add_argument("--local_epochs", type=int, default=3, help="epochs at each site between two averages")
    parser.add_argument("--datasets", type=Path, nargs="+", help="one data set a site (default: two phantom studies)")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/federation"))
    return split_options(parser, argv)


def main(argv: list[str] | None = None) -> None:
    options, given = arguments(argv)
    folder = options.output_dir.expanduser().resolve()
    if " " in f"{folder}{home()}":
        raise PyrasegError(f"NVFlare splits its arguments at spaces: {folder} and {home()} must not contain any.")
    datasets = [path.expanduser().resolve() for path in options.datasets] if options.datasets else [None, None]
    with held(folder, "federation"):
        settings = {**given, "rounds": options.rounds, "local_epochs": options.local_epochs}
        read_config(files(), settings)  # a mistyped option is told before anything is written
        overlays = write_sites(folder, datasets, settings)
        for overlay in overlays.values():  # what is wrong with a data set is told before NVFlare starts
            read_config([*files(), overlay]).get_parsed_content("cases")
        checkpoint = simulate(folder, overlays, rounds=options.rounds)
        config = read_config([*files(), *overlays.values()])
        network = config.get_parsed_content("network_def")
        network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["model"])
        save_model(network.state_dict(), folder / "model.pt", settings=config.get_parsed_content("settings"))
    print(f"The model of {len(overlays)} sites after {options.rounds} rounds is {folder / 'model.pt'}")

# SPDX-License-Identifier: Apache-2.0
"""A site of a federation: MONAI's client of this bundle, run by NVFlare's client API.

NVFlare runs this file at every site; `pyraseg federation` does so on one machine. The settings of a site (data,
folders) are in a config overlay that each site keeps to itself.
"""

import argparse

import nvflare.client as flare
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject
from nvflare.app_common.abstract.fl_model import FLModel

from bundle.pyraseg.networks import require_finite
from bundle.pyraseg.workflow import merge_files
from bundle.pyraseg_tools.commands.federation import CONFIGS


def build_client(bundle_root: str, site: str, *, name: str) -> MonaiAlgo:
    """Return MONAI's client of the bundle, with the configs of a site: ours, then the overlay at the path `site`."""
    files = [*(f"{bundle_root}/{config}" for config in CONFIGS), site]
    local_epochs = merge_files(files)["local_epochs"]
    client = MonaiAlgo(
        bundle_root,
        local_epochs=local_epochs,
        send_weight_diff=False,
        config_train_filename=[*CONFIGS, site],
        config_evaluate_filename=[*CONFIGS, site],
    )
    client.initialize({ExtraItems.CLIENT_NAME: name})
    return client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle_root", required=True, help="folder of the bundle on this site")
    parser.add_argument("--site", required=True, help="overlay with the site's own settings, such as dataset_dir")
    arguments = parser.parse_args()
    flare.init()
    client = build_client(arguments.bundle_root, arguments.site, name=flare.get_site_name())
    while flare.is_running():
        received = flare.receive()
        require_finite({name: torch.as_tensor(value) for name, value in received.params.items()}, "The server's model")
        # The scores are those of the weights that came: the server keeps the best of them.
        metrics = client.evaluate(ExchangeObject(weights=dict(received.params))).metrics
        client.train(ExchangeObject(weights=dict(received.params)))
        trained = client.get_weights()
        require_finite({name: torch.as_tensor(value) for name, value in trained.weights.items()}, "This site's model")
        steps = trained.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS]
        flare.send(FLModel(params=trained.weights, metrics=metrics, meta={"NUM_STEPS_CURRENT_ROUND": steps}))
    client.finalize()


if __name__ == "__main__":
    main()

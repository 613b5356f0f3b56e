# SPDX-License-Identifier: Apache-2.0
"""A process that trains the network of one checkout on given batches, as many steps at a time as it is told.

`benchmarks.training_step` starts it, with the interpreter of the checkout in whose folder it runs. It therefore imports
nothing but what every revision has: MONAI's configs say the rest. It reads numbers of steps from its standard input,
one a line, and writes seconds and losses of these steps, and the processor time of one, as a line of JSON.
"""

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    given = json.loads(sys.argv[1])
    if given["allocator"] == "kept":  # what `keep_memory` of bundle/pyraseg/core/process.py says, in every revision
        mallopt = ctypes.CDLL(None).mallopt
        assert mallopt(-4, 0) and mallopt(-1, 2**31 - 1)
    import torch  # behind the allocator's setting, as in our programs

    torch.set_num_threads(given["threads"])
    torch.manual_seed(given["seed"])
    network, inferer, loss, optimizer = parts(given)
    batches = torch.load(given["batches"])
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(given["seed"])).tolist()
    network.train()
    step = 0
    answer({"versions": {"python": sys.version.split()[0], "torch": torch.__version__}})
    for line in sys.stdin:
        seconds, losses, before = [], [], time.process_time()
        for _ in range(int(line)):
            batch = batches[order[step % len(order)]]
            image, label = batch["image"].float(), batch["label"].float()
            start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            value = loss(inferer(image, network), label)
            value.backward()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
            losses.append(value.item())
            step += 1
        used = (time.process_time() - before) / len(seconds)
        answer({"seconds": seconds, "losses": losses, "processor_s": used})


def answer(found: dict[str, Any]) -> None:
    print("answer " + json.dumps(found), flush=True)


def parts(given: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Return network, inferer, loss and optimizer as the checkout's config has them, or a peer's network with them."""
    import torch
    from monai.bundle import ConfigParser
    from monai.inferers import SimpleInferer

    root = Path.cwd()
    parser = ConfigParser()
    parser.read_config([root / "configs" / name for name in given["configs"] if (root / "configs" / name).is_file()])
    parser["bundle_root"] = str(root)
    for name, value in given["options"].items():
        parser[name] = value
    loss = parser.get_parsed_content("loss")
    if given["peer"]:
        from bundle.pyraseg.networks import import_with_torchvision, load_weights, read_packaged_weights

        smp = import_with_torchvision("segmentation_models_pytorch")
        channels, classes = given["channels"]
        build = getattr(smp, given["peer"])
        network = build("tu-tf_efficientnet_lite0", encoder_weights=None, in_channels=channels, classes=classes)
        load_weights(network.encoder.model, read_packaged_weights())
        return network, SimpleInferer(), loss, torch.optim.AdamW(network.parameters(), lr=1e-3)
    optimizer = parser.get_parsed_content("optimizer")
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 if group["name"] == "encoder" else 2e-3  # those of the default plan
    return parser.get_parsed_content("network"), parser.get_parsed_content("train#inferer"), loss, optimizer


if __name__ == "__main__":
    main()

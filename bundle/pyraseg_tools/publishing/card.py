# SPDX-License-Identifier: Apache-2.0
"""The first page of a package, which is also its card on the Hugging Face hub, and the page of its changes.

The card begins with YAML front matter (https://huggingface.co/docs/hub/model-cards), so that what is published is the
package as it is and its sums hold there too.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from bundle.pyraseg.packaging import BILL, CHANGELOG


def first_page(package: str, metadata: Mapping[str, Any], purpose: str) -> str:
    """Return the README.md of a package, which says in words what images its model is for."""
    front = yaml.safe_dump(front_matter(metadata), sort_keys=False, allow_unicode=True, width=1000)
    return f"""---
{front}---

# {metadata["name"]} {metadata["version"]}

{metadata["task"]}: {metadata["description"]}. {metadata["intended_use"]}.

{purpose}

A [MONAI Bundle](https://monai.readthedocs.io/en/stable/bundle_intro.html). [docs/README.md](docs/README.md) is its
model card, [docs/data_license.txt](docs/data_license.txt) says what its data and its weights may be used for,
[{CHANGELOG}]({CHANGELOG}) what changed from version to version, and `{BILL}` lists what it needs. In the
folder above this one, with Python 3.11 or later (without a GPU, point pip at PyTorch's CPU index first):

```
pip install -c {package}/constraints.txt "./{package}[train]"
python -m monai.bundle run inferring --config_file {package}/configs/inference.json --dataset_dir IN --output_dir OUT
python -m monai.bundle run training --config_file {package}/configs/train.json --dataset_dir DATA
python -m monai.bundle run evaluating --config_file {package}/configs/evaluate.json --dataset_dir DATA
python -m monai.bundle ckpt_export network_def --config_file {package}/configs/inference.json \\
    --meta_file {package}/configs/metadata.json --ckpt_file {package}/models/model.pt --filepath model.ts
```

Apache-2.0, see [LICENSE](LICENSE).
"""


def front_matter(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the hub reads of a card: license, library, tags, and the measured figures where there are any.

    Nothing stands under `datasets`, which takes names of data sets on the hub: words say where the data come from.
    """
    modality = metadata["network_data_format"]["inputs"]["image"].get("modality", "n/a")
    front = {
        "license": metadata["weights_license"].lower(),
        "library_name": "monai",
        "pipeline_tag": "image-segmentation",
        "tags": ["monai", "medical", "segmentation", *([modality.lower()] if modality != "n/a" else [])],
    }
    if metadata.get("eval_metrics"):
        metrics = [
            {"type": name, "name": name.replace("_", " "), "value": value}
            for name, value in metadata["eval_metrics"].items()
        ]
        result = {
            "task": {"type": "image-segmentation", "name": metadata["task"]},
            "dataset": {"type": "other", "name": metadata["data_source"], "split": "test"},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": metadata["name"], "results": [result]}]
    return front


def changelog_page(metadata: Mapping[str, Any]) -> str:
    """Return the changes of each version as a page, in the order of the metadata, which is the newest first."""
    parts = [f"## {version}\n\n{text}.\n" for version, text in metadata["changelog"].items()]
    return "\n".join(["# Changes\n", *parts])

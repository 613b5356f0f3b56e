# SPDX-License-Identifier: Apache-2.0
"""Make `import torchvision` work beside a PyTorch build that it was not compiled for.

On Linux the registries pair a CPU build of PyTorch with a torchvision built for CUDA. That torchvision cannot load its
compiled operators, and its import then dies while it registers shape functions for operators that do not exist
("operator torchvision::nms does not exist"); timm cannot be imported without torchvision. Declaring the two missing
operator schemas is enough for the import. Calling them still fails, which nothing here does.
"""

import sys
from importlib import import_module
from types import ModuleType

import torch

# Schemas as torchvision 0.28 registers them. The Library must stay alive, or its operators vanish.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None


def import_with_torchvision(name: str) -> ModuleType:
    """Import and return a module that needs torchvision, declaring its missing operators first where it lacks them.

    Does nothing more than an import where torchvision is sound. What is imported so, timm among it, is named by what
    this returns: an import statement further up would come too early.

    Raises:
        RuntimeError: torchvision fails to import for another reason than the missing operators.
    """
    global _library
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error) or _library is not None:
            raise
        for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == "torchvision"]:
            del sys.modules[loaded]
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
    return import_module(name)

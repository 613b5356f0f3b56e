# SPDX-License-Identifier: Apache-2.0
"""What a user can mend, what is missing, and what may have been meant, in words."""

import importlib
import logging
import os
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

logger = logging.getLogger(__name__)


#: Extras by the name under which a package is imported.
EXTRAS = {
    "tensorboard": "train",
    "matplotlib": "train",
    "itk": "nrrd",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "openvino": "openvino",
    "dicomweb_client": "pacs",
    "requests": "pacs",
    "pynetdicom": "pacs",
    "obstore": "archive",
    "pyarrow": "archive",
    "ray": "ray",
    "cryptography": "signing",
    "huggingface_hub": "hub",
    "httpx2": "hub",
    "mlflow": "tracking",
}
#: What is in no extra, for it would not go with the other packages.
ELSEWHERE = {
    "nvflare": "`pip install --requirement scripts/federated_requirements.txt` in an environment of its own",
    "monailabel": "`make label` makes an environment with it",
    "bundle.pyraseg_tools": "a model package has no tools for makers; install pyraseg from its wheel or clone",
}


def remedy_for(module: str) -> str | None:
    """Return what to do where a module is missing, or None where it is none of these.

    >>> remedy_for("onnxruntime.quantization")
    'onnxruntime is missing. It is in the extra "export": pip install "pyraseg[export]"'
    """
    name = module.partition(".")[0]
    if name in EXTRAS:
        return f'{name} is missing. It is in the extra "{EXTRAS[name]}": pip install "pyraseg[{EXTRAS[name]}]"'
    known = next((known for known in ELSEWHERE if f"{module}.".startswith(f"{known}.")), None)
    return known and f"{known} is missing: {ELSEWHERE[known]}."


class PyrasegError(ValueError):
    """Say what was found, where, and what to do about it.

    Everything that is wrong with a user's input (a path, a file, a header, an option) is raised as this type, so that
    the command line can print the message alone and a caller can tell it from a defect of the program.
    """


class DiskError(PyrasegError, OSError):
    """Say that a disk takes no more: a fault of this machine, and of no file, series or label."""


def mendable(error: BaseException) -> PyrasegError | None:
    """Return the `PyrasegError` that an error is or was raised from, or None.

    MONAI raises a `RuntimeError` of its own from whatever a component or a transform raises. A package that is missing
    is one, too, where an extra brings it.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PyrasegError):
        if isinstance(cause, ModuleNotFoundError) and (remedy := remedy_for(str(cause.name))):
            return PyrasegError(remedy)
        cause = cause.__cause__
    return cause


def require_mendable(error: Exception) -> PyrasegError:
    """Return the `PyrasegError` that an error is or was raised from; raise the error itself where there is none."""
    cause = mendable(error)
    if cause is None:
        raise error
    return cause


def require(module: str) -> ModuleType:
    """Return a module of an extra.

    Raises:
        PyrasegError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise PyrasegError(remedy_for(module) or f"{module} is missing: pip install {module}.") from error


def root_of(error: BaseException) -> BaseException:
    """Return what an error was raised from in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def describe(error: BaseException) -> str:
    """Return what a person has to know of an error that stopped one of many inputs.

    Of an unexpected one that is its type and its place alone: the messages of libraries may quote a header, and with it
    a patient. With the environment variable PYRASEG_TRACEBACK set the whole of it is logged.
    """
    cause = mendable(error)
    if cause is not None:
        return str(cause)
    root = root_of(error)
    if is_out_of_memory(root):
        return "there is not enough memory for it. Free some, take a coarser spacing, or leave it out."
    if isinstance(root, OSError) and root.strerror:
        return f"{root.strerror}: {root.filename or 'a file'}."
    if os.environ.get("PYRASEG_TRACEBACK"):
        logger.error("An unexpected error", exc_info=error)
    last = traceback.extract_tb(root.__traceback__)[-1:]
    place = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in last)
    return f"an unexpected {type(root).__name__}{place}. PYRASEG_TRACEBACK=1 in the environment shows all of it."


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out: Python's, CUDA's, or that of torch's allocator for the CPU."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True  # the second is PyTorch's, which is not imported for its name
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("not enough memory", "out of memory", "can't allocate memory")
    )


def nearest_hint(name: object, known: Iterable[object], *, count: int = 1) -> str:
    """Return a sentence that names the most similar of the known names, for the end of a message, or "".

    >>> nearest_hint("epoch", ["epochs", "spacing"])
    " The nearest name is 'epochs'."
    """
    nearest = get_close_matches(str(name), sorted(map(str, known)), n=count, cutoff=0.3)
    named = ", ".join(map(repr, nearest))
    return f" The nearest name{' is' if len(nearest) == 1 else 's are'} {named}." if nearest else ""

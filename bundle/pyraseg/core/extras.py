# SPDX-License-Identifier: Apache-2.0
"""Packages that only some need: which extra of pyproject.toml brings them, for the message where one is missing."""

#: Extras by the name under which a package is imported.
EXTRAS = {
    "tensorboard": "train",
    "matplotlib": "train",
    "jinja2": "train",
    "itk": "nrrd",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "openvino": "openvino",
    "dicomweb_client": "pacs",
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

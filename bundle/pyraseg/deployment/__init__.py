# SPDX-License-Identifier: Apache-2.0
"""Export of trained networks to other runtimes."""

try:
    import onnx  # noqa: F401
    import onnx_ir  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401 what PyTorch's exporter is made of
except ImportError as error:
    raise ImportError(f'{error}. Exported models need an extra of this package: pip install -e ".[export]"') from error

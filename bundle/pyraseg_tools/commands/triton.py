# SPDX-License-Identifier: Apache-2.0
"""Write a model repository for Triton Inference Server from exported models.

pyraseg triton models/dermoscopy.int8.onnx --output-dir triton

writes triton/dermoscopy_int8/config.pbtxt and triton/dermoscopy_int8/1/model.onnx. A server starts on it with
`tritonserver --model-repository triton`. No Triton server was at hand: the text is checked against Triton's own schema
of it, it was not tested with a server.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.deployment import write_repository


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("triton", __doc__)
    parser.add_argument("model", type=Path, nargs="+", help="ONNX files")
    parser.add_argument("--output-dir", type=Path, default=Path("triton"), help="the repository")
    parser.add_argument("--threads", type=int, default=2, help="of each copy of a model")
    parser.add_argument("--instances", type=int, default=1, help="copies of each model that answer at once")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    written = [
        write_repository(file, options.output_dir, threads=options.threads, instances=options.instances)
        for file in options.model
    ]
    print(f"Written: {', '.join(map(str, written))}")

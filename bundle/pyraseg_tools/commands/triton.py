# SPDX-License-Identifier: Apache-2.0
"""Write a model repository for Triton Inference Server from exported models.

pyraseg triton models/dermoscopy.int8.onnx --output-dir triton

writes triton/dermoscopy_int8/config.pbtxt and triton/dermoscopy_int8/1/model.onnx. Start a server with
`tritonserver --model-repository triton`. The configuration is checked against Triton's own schema. It was not tested
with a server.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands import command_parser


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("triton", __doc__)
    parser.add_argument("model", type=Path, nargs="+", help="ONNX files")
    parser.add_argument("--output-dir", type=Path, default=Path("triton"), help="folder of the repository")
    parser.add_argument("--threads", type=int, default=2, help="threads of each copy of a model")
    parser.add_argument("--instances", type=int, default=1, help="number of copies of each model that run in parallel")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    from bundle.pyraseg.deployment import write_repository  # behind the arguments, so that --help needs no extra

    written = [
        write_repository(file, options.output_dir, threads=options.threads, instances=options.instances)
        for file in options.model
    ]
    print(f"Written: {', '.join(map(str, written))}")

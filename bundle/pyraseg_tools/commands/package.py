# SPDX-License-Identifier: Apache-2.0
"""Package a task as a complete bundle, dist/pyraseg_TASK_vVERSION.zip, to share it.

pyraseg package --task dermoscopy

The package has the merged, self-contained configs of the task, the weights, the code, the model card and the license of
the data, with SHA-256 checksums, a bill of materials and a golden prediction on a drawn image. It has no data. The same
commit gives the same bytes. `pyraseg verify` checks it, and `pyraseg publish` publishes it (docs/sharing.md).
"""

import argparse
import hashlib
from pathlib import Path

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.publishing import pack


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("package", __doc__)
    parser.add_argument("--task", required=True, help="such as dermoscopy; phantom is the default task")
    parser.add_argument("--output-dir", type=Path, default=Path("dist"), help="where to write (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="weights to package (default: those of the configs of the task)")
    parser.add_argument("--sign", type=Path, metavar="PRIVATE", help="PEM file of an Ed25519 private key to sign with")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    if not Path("pyproject.toml").is_file():
        raise PyrasegError(f"{Path.cwd()} is not a clone of pyraseg, which packaging needs. Run the command in one.")
    print(f"Packaging {options.task}, and trying the package on a made-up image ...", flush=True)
    path = pack(Path.cwd(), options.task, options.output_dir, model=options.model, key=options.sign)
    content = path.read_bytes()
    signed = f"signed with {options.sign}" if options.sign else "unsigned"
    print(f"Wrote {path} ({len(content) / 1e6:.1f} MB, {signed}), SHA-256 {hashlib.sha256(content).hexdigest()}")

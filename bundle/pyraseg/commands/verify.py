# SPDX-License-Identifier: Apache-2.0
"""Verify a model package before its code is run.

pyraseg verify pyraseg_dermoscopy_v0.4.0.zip --key public.pem

PACKAGE is the zip, or a folder with the same files, unpacked or downloaded from a hub. Its format, checksums, signature
and metadata are checked first, as bytes and plain JSON. Only a package that passes is unpacked to a temporary folder
and run on its drawn image. The shapes of the network, the preprocessing and the prediction must equal those of the
machine that made it. Parsing a MONAI config runs code, so an unsigned package is run only with --unsigned.
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.packaging import verify


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("verify", __doc__)
    parser.add_argument("package", type=Path, help="the downloaded package, a zip or a folder")
    parser.add_argument("--key", type=Path, metavar="PUBLIC", help="PEM file of the Ed25519 public key that signed it")
    parser.add_argument("--unsigned", action="store_true", help="trust it without a signature, and run its code")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    verified = verify(options.package, key=options.key, unsigned=options.unsigned)
    signed = f"signed by {options.key}" if options.key else "unsigned"
    print(f"Verified: {verified.title}: {len(verified.files)} files, {signed}")

# SPDX-License-Identifier: Apache-2.0
"""Verify a packaged bundle before anything in it is run: python -m bundle.pyraseg.verify ZIP --key PUBLIC.

Its form, sums, signature and metadata are checked first, as bytes and plain JSON. Only a package that passes is
unpacked, into a temporary folder, and run on the made-up image that it holds: the shapes of the network, the
preprocessing and the prediction must be those of the machine that made it. Parsing a MONAI config runs code, so a
package that nobody has signed is run with --unsigned alone. Start it from an installed pyraseg, never from within a
folder that a package was unpacked into.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.packaging.archive import read_archive, unpack
from bundle.pyraseg.packaging.form import check_form
from bundle.pyraseg.packaging.golden import run_golden
from bundle.pyraseg.packaging.signature import check_signature, read_public_key
from bundle.pyraseg.packaging.sums import SIGNATURE, SUMS, check_sums


def verify(path: Path, *, key: Path | None = None, unsigned: bool = False) -> str:
    """Check a package; return what it is, in words.

    Args:
        path: of the zip.
        key: PEM file of the public key that must have signed it, from elsewhere than the package.
        unsigned: run it although no signature was checked.

    Raises:
        PyrasegError: the first thing that is wrong.
    """
    public = None if key is None else read_public_key(key)
    try:
        name, files = read_archive(path)
        check_sums(files)
        if public is not None:
            if SIGNATURE not in files:
                raise PyrasegError("it has no signature, and one by the key was asked for")
            check_signature(files[SUMS], files[SIGNATURE], public)
        metadata = check_form(name, files)
    except PyrasegError as error:
        raise PyrasegError(
            f"{path} is refused: {error}. Nothing of it was run. Get the package again from who made it."
        ) from error
    title = f"{name} {metadata['version']}"
    if key is None and not unsigned:
        signed = "It has a signature: give" if SIGNATURE in files else "It has no signature. Ask for one, with"
        raise PyrasegError(
            f"{path} holds {title}, whole and well formed, but nothing says who made it, so nothing of it was run. "
            f"{signed} the maker's public key (--key PUBLIC). To trust it as it is, and run its code: --unsigned."
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / name
        unpack(files, folder)
        fault = run_golden("check", folder)
    if fault:
        raise PyrasegError(
            f"{path} holds {title} as it was made, but on this machine it works otherwise: {fault}. Install the "
            "versions in its constraints.txt; if that does not mend it, tell who made it."
        )
    return f"{title}: {len(files)} files, {'signed by ' + str(key) if key else 'unsigned'}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bundle.pyraseg.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("zip", type=Path, help="the package, as it was downloaded")
    parser.add_argument("--key", type=Path, metavar="PUBLIC", help="PEM file of the Ed25519 public key that signed it")
    parser.add_argument("--unsigned", action="store_true", help="trust it without a signature, and run its code")
    options = parser.parse_args(argv)
    try:
        print("Verified:", verify(options.zip, key=options.key, unsigned=options.unsigned))
    except PyrasegError as error:
        print(f"pyraseg: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

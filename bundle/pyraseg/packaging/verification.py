# SPDX-License-Identifier: Apache-2.0
"""Verify a packaged bundle before anything in it is run.

PACKAGE is the zip, or a folder that holds the same files: one that was unpacked, or downloaded from a hub.
Its form, sums, signature and metadata are checked first, as bytes and plain JSON. Only a package that passes is
unpacked, into a temporary folder, and run on the made-up image that it holds: the shapes of the network, the
preprocessing and the prediction must be those of the machine that made it. Parsing a MONAI config runs code, so a
package that nobody has signed is run only where that is asked for.
"""

import json
import tempfile
from pathlib import Path

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.packaging.archive import read_archive, read_folder, unpack
from bundle.pyraseg.packaging.form import BILL, Verified, check_form
from bundle.pyraseg.packaging.golden import run_golden
from bundle.pyraseg.packaging.sums import SIGNATURE, SUMS, check_signature, check_sums, read_public_key


def verify(path: Path, *, key: Path | None = None, unsigned: bool = False) -> Verified:
    """Check a package; return what it holds, as it was checked.

    Args:
        path: of the zip, or of a folder with its files.
        key: PEM file of the public key that must have signed it, from elsewhere than the package.
        unsigned: run it although no signature was checked.

    Raises:
        PyrasegError: the first thing that is wrong.
    """
    public = None if key is None else read_public_key(key)
    try:
        name, files = (None, read_folder(path)) if path.is_dir() else read_archive(path)
        check_sums(files)
        if public is not None:
            if SIGNATURE not in files:
                raise PyrasegError("it has no signature, but a key was given")
            check_signature(files[SUMS], files[SIGNATURE], public)
        metadata = check_form(name, files)
    except PyrasegError as error:
        raise PyrasegError(
            f"{path} is refused: {error}. None of its code was run. Get the package again from its maker."
        ) from error
    verified = Verified(name or json.loads(files[BILL])["metadata"]["component"]["name"], metadata, files)
    if key is None and not unsigned:
        signed = "It has a signature: give" if SIGNATURE in files else "It has no signature. Ask for one, with"
        raise PyrasegError(
            f"{path} holds {verified.title}, whole and well formed, but nothing says who made it, so nothing of it was "
            f"run. {signed} the maker's public key (--key PUBLIC). To trust it as it is, and run its code: --unsigned."
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / verified.name
        unpack(files, folder)
        fault = run_golden("check", folder)
    if fault:
        raise PyrasegError(
            f"{path} holds {verified.title} as it was made, but on this machine it works otherwise: {fault}. Install "
            "the versions in its constraints.txt; if that does not mend it, tell who made it."
        )
    return verified

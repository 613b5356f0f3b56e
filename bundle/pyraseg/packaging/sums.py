# SPDX-License-Identifier: Apache-2.0
"""SHA256SUMS: what each file of a package must be, in the form of coreutils' `sha256sum`."""

import hashlib
import re
from collections.abc import Mapping

from bundle.pyraseg.core import PyrasegError

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"


def sums_text(files: Mapping[str, bytes]) -> bytes:
    """Return the sums of files by path, in the order of their names.

    >>> print(sums_text({"b": b"2", "a": b"1"}).decode(), end="")
    6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b  a
    d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35  b
    """
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return "".join(lines).encode()


def check_sums(files: Mapping[str, bytes]) -> None:
    """Check every file of a package against its SHA256SUMS; only that file and its signature have no sum.

    Raises:
        PyrasegError: there are no sums, they are malformed, or a file has another sum, has none, or is missing.
    """
    if SUMS not in files:
        raise PyrasegError(f"it has no {SUMS}, so nothing tells whether it is whole")
    expected: dict[str, str] = {}
    for number, line in enumerate(files[SUMS].decode("utf-8", "replace").splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-f]{64})  (\S+)", line)
        if match is None or match[2] in expected or match[2] in (SUMS, SIGNATURE):
            raise PyrasegError(f"line {number} of its {SUMS} is malformed")
        expected[match[2]] = match[1]
    present = {name: content for name, content in files.items() if name not in (SUMS, SIGNATURE)}
    for name in sorted(present.keys() | expected.keys()):
        if name not in expected:
            raise PyrasegError(f"{name} has no sum in {SUMS}: it was added after the package was made")
        if name not in present:
            raise PyrasegError(f"{name} stands in {SUMS} and is missing")
        if hashlib.sha256(present[name]).hexdigest() != expected[name]:
            raise PyrasegError(f"{name} is not the file that {SUMS} names: it was changed or damaged")

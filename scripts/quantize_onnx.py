# SPDX-License-Identifier: Apache-2.0
"""The command `pyraseg quantize` as a program of this folder."""

import sys

from bundle.pyraseg.commands import main

if __name__ == "__main__":
    sys.exit(main(["quantize", *sys.argv[1:]]))

# SPDX-License-Identifier: Apache-2.0
"""The command `pyraseg pacs` as a program of this folder."""

import sys

from bundle.pyraseg.commands import main

if __name__ == "__main__":
    sys.exit(main(["pacs", *sys.argv[1:]]))

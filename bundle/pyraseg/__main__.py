# SPDX-License-Identifier: Apache-2.0
"""`python -m bundle.pyraseg COMMAND`: the program `pyraseg` where the package is not installed."""

import sys

from bundle.pyraseg.commands import main

if __name__ == "__main__":
    sys.exit(main())

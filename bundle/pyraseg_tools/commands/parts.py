# SPDX-License-Identifier: Apache-2.0
"""The value of `--part N/OF` of commands whose work several machines share, such as the tasks of a SLURM array."""

import argparse


def part_of(text: str) -> tuple[int, int]:
    """Return which part, from 1 on, of how many.

    >>> part_of("3/64")
    (3, 64)

    Raises:
        argparse.ArgumentTypeError: the text is none.
    """
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"it is NUMBER/PARTS, such as 3/64 with numbers from 1, not {text}")
    return int(number), int(parts)

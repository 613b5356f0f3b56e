# SPDX-License-Identifier: Apache-2.0
"""The one error that a user can mend."""


class PyrasegError(ValueError):
    """Say what was found, where, and what to do about it.

    Everything that is wrong with a user's input (a path, a file, a header, an option) is raised as this type, so that
    the command line can print the message alone and a caller can tell it from a defect of the program.
    """

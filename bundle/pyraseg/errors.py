# SPDX-License-Identifier: Apache-2.0
"""The one error that a user can mend."""


class PyrasegError(ValueError):
    """Say what was found, where, and what to do about it.

    Everything that is wrong with a user's input (a path, a file, a header, an option) is raised as this type, so that
    the command line can print the message alone and a caller can tell it from a defect of the program.
    """


def mendable(error: BaseException) -> PyrasegError | None:
    """Return the `PyrasegError` that an error is or was raised from, or None.

    MONAI raises a `RuntimeError` of its own from whatever a component or a transform raises.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PyrasegError):
        cause = cause.__cause__
    return cause

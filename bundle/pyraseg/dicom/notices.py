# SPDX-License-Identifier: Apache-2.0
"""What pydicom and highdicom have to say about odd values stays unsaid: they quote them, such as a patient's name."""

import logging
import warnings

import pydicom.config


def silence_libraries() -> None:
    """Take values as they are, and let no library tell of them, in the whole process and for good.

    There are several notices a file. What keeps a file from being read is raised, not noticed; what is written has
    sound values (`sound_sources`). Nothing here is put back: `warnings.catch_warnings` and pydicom's own switch hold
    for all threads, and one that puts them back lets another one speak.
    """
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # no check, so no warning to be filtered
    for library in ("pydicom", "highdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=rf"{library}\b")
    warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended person name")

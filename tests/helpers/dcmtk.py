# SPDX-License-Identifier: Apache-2.0
"""Programs of dcmtk, which are the independent peers of DIMSE."""

import os
import shutil
import subprocess

import pytest


def dcmtk(name: str) -> str:
    """Return the path of a program, or skip the test where it is not installed.

    pynetdicom 3.0.4 installs programs of the same names, which an active environment has in front of dcmtk's.
    """
    for folder in os.environ["PATH"].split(os.pathsep):
        path = shutil.which(name, path=folder)
        if path is None:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        if "$dcmtk" in said:
            return path
    pytest.skip(f"{name} of dcmtk is not installed: apt-get install dcmtk")

# SPDX-License-Identifier: Apache-2.0
"""A small synthetic CT study with labels, in real DICOM, for the default task and the tests."""

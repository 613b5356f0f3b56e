# SPDX-License-Identifier: Apache-2.0
"""What becomes of a prediction, one kind of file a module."""

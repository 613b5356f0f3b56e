# SPDX-License-Identifier: Apache-2.0
"""Which images the guards of the models flag."""

# SPDX-License-Identifier: Apache-2.0
"""Series in the forms that scanners write, made by code, each with its truth."""

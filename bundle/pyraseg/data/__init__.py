# SPDX-License-Identifier: Apache-2.0
"""Data lists, the phantom study and slices of volumes."""

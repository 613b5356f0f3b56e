# SPDX-License-Identifier: Apache-2.0
"""Figures of merit and how they are reported."""

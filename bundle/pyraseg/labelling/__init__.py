# SPDX-License-Identifier: Apache-2.0
"""Serving a package through MONAI Label: inference, labels, retraining."""

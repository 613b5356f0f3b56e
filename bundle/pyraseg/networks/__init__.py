# SPDX-License-Identifier: Apache-2.0
"""Encoders, pyramid pooling and the segmentation networks built from them."""

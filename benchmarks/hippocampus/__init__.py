# SPDX-License-Identifier: Apache-2.0
"""Train our 3-D network, MONAI's and nnU-Net on the hippocampus for the same processor time, and compare them."""

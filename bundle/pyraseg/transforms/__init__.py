# SPDX-License-Identifier: Apache-2.0
"""Dictionary transforms that MONAI does not have."""

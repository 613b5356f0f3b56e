# SPDX-License-Identifier: Apache-2.0
"""Export of trained networks to other runtimes."""

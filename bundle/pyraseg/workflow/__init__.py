# SPDX-License-Identifier: Apache-2.0
"""What a running config asks of itself: its root, its options, its surroundings, its errors."""

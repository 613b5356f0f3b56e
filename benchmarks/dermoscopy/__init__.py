# SPDX-License-Identifier: Apache-2.0
"""Train our networks and others alike on photographs of skin lesions, and compare them."""

# SPDX-License-Identifier: Apache-2.0
"""Train the tasks of real images, each beside the networks of others, and compare them."""

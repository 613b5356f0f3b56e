# SPDX-License-Identifier: Apache-2.0
"""From whatever lies in a folder to label maps and pictures beside it."""

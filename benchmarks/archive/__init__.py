# SPDX-License-Identifier: Apache-2.0
"""What `pyraseg archive` promises, tried: each series once whatever is killed, its speed, and a million series."""

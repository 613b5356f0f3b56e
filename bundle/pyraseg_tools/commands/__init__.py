# SPDX-License-Identifier: Apache-2.0
"""Commands of `pyraseg` for makers of models and for sites."""

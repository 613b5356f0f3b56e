# SPDX-License-Identifier: Apache-2.0
"""Tools for makers of models and for sites; no model package ships them."""

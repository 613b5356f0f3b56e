# SPDX-License-Identifier: Apache-2.0
"""Stages, samplers and handlers of a training run."""

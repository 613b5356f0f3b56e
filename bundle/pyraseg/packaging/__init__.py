# SPDX-License-Identifier: Apache-2.0
"""One task as one file to share: made from the repository, and checked before anything in it is run."""

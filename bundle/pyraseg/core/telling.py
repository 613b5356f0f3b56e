# SPDX-License-Identifier: Apache-2.0
"""What is odd in a file, told once."""

import logging
from functools import lru_cache

logger = logging.getLogger(__name__)


@lru_cache(maxsize=10_000)  # a server's files have ever new names
def tell(message: str) -> None:
    """Warn once of what is odd in a file, however often it is read."""
    logger.warning("%s", message)

# SPDX-License-Identifier: Apache-2.0
"""What is odd in a file, told once."""

import logging
from functools import cache

logger = logging.getLogger(__name__)


@cache
def tell(message: str) -> None:
    """Warn once of what is odd in a file, however often it is read."""
    logger.warning("%s", message)

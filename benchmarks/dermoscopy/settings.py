# SPDX-License-Identifier: Apache-2.0
"""Settings of the dermoscopy task that were tried on its validation part."""

from typing import Any

#: Overrides of the config by name.
SETTINGS: dict[str, dict[str, Any]] = {
    "as configured": {},
}

# SPDX-License-Identifier: Apache-2.0
"""What became of a series."""

import json
from dataclasses import asdict, dataclass, field

#: The result is in the target; the series will not do; something else failed, and it may do another time.
DONE, FAILED, AGAIN = "done", "failed", "again"


@dataclass(frozen=True)
class Outcome:
    """Hold what became of a series.

    Attributes:
        state: DONE, FAILED or AGAIN.
        series: its UID.
        images: how many it has.
        reason: why it is not done.
        name: of the result in the target.
        volumes: ml of each structure; none of an image without a patient position.
        unlike: how far the series is from those of the training, see `runtime.Guard.unlike`; None where nobody looked.
        seconds: spent on fetching, segmenting and delivering, by these names.
        found: the result was in the target before.
        no_way: there is no way to the source or the target, so that nothing else can be done either.
    """

    state: str
    series: str
    images: int = 0
    reason: str = ""
    name: str = ""
    volumes: dict[str, float] = field(default_factory=dict)
    unlike: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    found: bool = False
    no_way: bool = False

    @property
    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

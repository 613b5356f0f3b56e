# SPDX-License-Identifier: Apache-2.0
"""Load images one by one without letting a broken one stop the others."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch.utils.data import IterableDataset

from bundle.pyraseg.inference.tally import Tally


class InputDataset(IterableDataset):
    """Yield the inputs that can be loaded; the next one is loaded, in a thread, while one is being segmented.

    So no more than one volume waits. What cannot be loaded is reported and passed over.

    Args:
        data: what `find_inputs` returned.
        transform: preprocessing of an item, {"image": path} -> {"image": tensor, ...}.
        tally: where a failure is reported.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable[[dict], dict], *, tally: Tally) -> None:
        self.data = list(data)
        self.transform = transform
        self.tally = tally

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(1, thread_name_prefix="loading") as pool:
            waiting: Future | None = None
            for item in [*self.data, None]:
                current, waiting = waiting, item and pool.submit(self._load, item)
                loaded = current and current.result()
                del current  # else it keeps the volume until the next one is there
                if loaded is not None:
                    yield loaded

    def _load(self, item: dict[str, Any]) -> dict[str, Any] | None:
        if "fault" in item:
            self.tally.fail(item["name"], item["fault"])
            return None
        try:
            return self.transform(dict(item))
        except Exception as error:
            self.tally.fail(item["name"], error)
            return None

# SPDX-License-Identifier: Apache-2.0
"""Load and segment inputs one by one, and let none stop the others."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ignite.engine import Engine
from monai.data import MetaTensor, list_data_collate
from torch.utils.data import IterableDataset

from bundle.pyraseg.inference.guarding import ImageGuard
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
                current, waiting = waiting, pool.submit(self._load, item) if item is not None else None
                loaded = [] if current is None else [found for found in [current.result()] if found is not None]
                del current  # else it keeps the volume until the next one is there, as a name of it would
                if loaded:
                    yield loaded.pop()

    def _load(self, item: dict[str, Any]) -> dict[str, Any] | None:
        if "fault" in item:
            self.tally.fail(item["name"], item["fault"])
            return None
        try:
            return self.transform(dict(item))
        except Exception as error:
            self.tally.fail(item["name"], error)
            return None


def as_batch(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one input as a batch, as `list_data_collate` does, without a copy of its images."""
    (item,) = items
    images = {key: value for key, value in item.items() if isinstance(value, MetaTensor)}
    batch = list_data_collate([{**item, **{key: image[..., :1] for key, image in images.items()}}])
    for key, image in images.items():
        batch[key] = image.as_tensor()[None].as_subclass(MetaTensor).copy_meta_from(batch[key])
    return batch


class SegmentOne:
    """Be the iteration of a `SupervisedEvaluator`: its own one, whose failure counts for its input alone.

    Args:
        tally: where a failure is reported. The batch of the input is empty afterwards, so that handlers pass it over.
        guard: judges the input before the network sees it, and the batch holds what it finds as `unlike`; or None.
    """

    def __init__(self, *, tally: Tally, guard: ImageGuard | None = None) -> None:
        self.tally = tally
        self.guard = guard

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> Any:
        (name,) = batch["name"]
        try:
            if self.guard is not None:
                batch["unlike"] = [self.guard.judge(name, batch["image"][0])]
            return engine._iteration(engine, batch)  # the network and, by its events, the postprocessing
        except Exception as error:
            self.tally.fail(name, error)
        engine.state.batch, engine.state.output = [], []
        return engine.state.output

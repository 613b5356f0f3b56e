# SPDX-License-Identifier: Apache-2.0
"""One training in several processes: the network's wrapper, the cases of each, and what keeps them in step."""

from collections.abc import Iterator, Sized

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from bundle.pyraseg.core import process_count
from bundle.pyraseg.networks import import_with_torchvision


def distribute(network: nn.Module) -> DistributedDataParallel:
    """Return a network whose gradients are averaged over the processes; the network itself is changed in place.

    On a GPU, batch norm then takes its statistics from the batches of all processes (by timm's conversion: torch's own
    drops the activation that timm's layers hold). torch has none of that on CPUs, where each process normalizes its own
    batch.

    Every parameter must learn when this is called: those that do not are left out for good. Parts may be frozen
    afterwards, which is what searching for unused parameters is for. (A new wrapper at each stage would save the
    search, but trainer and handlers would hold the old one.) Statistics are not sent along at every step: `KeepInStep`
    settles them once an epoch.

    Raises:
        RuntimeError: a parameter is frozen.
    """
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise RuntimeError(f"{len(frozen)} parameters are frozen and would never be synchronized, as {frozen[0]}.")
    device = next(network.parameters()).device
    on_gpu = device.type == "cuda"
    return DistributedDataParallel(
        import_with_torchvision("timm").layers.convert_sync_batchnorm(network) if on_gpu else network,
        device_ids=[device] if on_gpu else None,
        forward_sync_buffers=False,
        find_unused_parameters=True,
    )


class CaseShare(Sampler[int]):
    """Give each process its share of the cases, one after the other, so that their results in a row are in order.

    Where there are fewer cases than processes, those that get none repeat the last case, since all must take part when
    results are gathered; `CaseOverlap` drops what comes after the last case.

    Args:
        data_source: the cases, or anything else of their number.
        rank: number of this process, from 0 on.
        processes: how many there are.
    """

    def __init__(self, data_source: Sized, *, rank: int, processes: int) -> None:
        total = len(data_source)
        first, end = (-(-total * number // processes) for number in (rank, rank + 1))  # the first have more
        if 0 < total < processes:
            first = min(rank, total - 1)
            end = first + 1
        self.cases = range(first, end)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[int]:
        return iter(self.cases)


class KeepInStep:
    """Average the statistics of batch norm, which each process takes from its own batches, over the processes.

    This happens after the last iteration of an epoch, before anything validates or saves. (The mean of the means is
    that of all batches; the mean of the variances lacks the spread between the means.) Parts in evaluation mode, and so
    frozen ones, have none to average, and SyncBatchNorm keeps its own in step.

    Args:
        network: that is trained.
        average: a moving average of it, which follows the same statistics; the network itself where there is none.
    """

    def __init__(self, network: nn.Module, *, average: nn.Module) -> None:
        self.network = network
        self.average = average

    def attach(self, engine: Engine) -> None:
        # The last iteration, not the end of the epoch: handlers of that may validate or save before this one's turn.
        engine.add_event_handler(Events.ITERATION_COMPLETED(event_filter=_is_last), self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        for module, averaged in zip(self.network.modules(), self.average.modules(), strict=True):
            if isinstance(module, _NormBase) and module.training and not isinstance(module, nn.SyncBatchNorm):
                for owner in dict.fromkeys((module, averaged)):
                    for statistic in (owner.running_mean, owner.running_var):
                        if isinstance(statistic, Tensor):
                            dist.all_reduce(statistic)
                            statistic /= process_count()


def _is_last(engine: Engine, iteration: int) -> bool:
    return iteration % engine.state.epoch_length == 0

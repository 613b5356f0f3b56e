# SPDX-License-Identifier: Apache-2.0
"""Who does the series: this process alone, or workers of Ray on this machine or a cluster."""

import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from bundle.pyraseg.core import PyrasegError, describe, require
from bundle.pyraseg_tools.archive.outcome import AGAIN, DONE, FAILED, Outcome
from bundle.pyraseg_tools.archive.table import Row
from bundle.pyraseg_tools.archive.work import Job, SeriesWorker, scratch

logger = logging.getLogger(__name__)

#: Series that wait for each worker beside the one in work, so that none is idle and memory stays small.
AHEAD = 1
#: So many workers may end with a series before it counts as its fault.
MOST_DEATHS = 3
#: So many times the workers there are may end in a row before they are up.
MOST_FALSE_STARTS = 5

Ended = list[tuple[Row, Outcome]]


class Engine(Protocol):
    """Does series."""

    workers: int

    def has_room(self) -> bool:
        """Return whether another series may be given: no more are held than there is work to do soon."""
        ...

    def give(self, row: Row) -> None:
        """Take a series to do."""
        ...

    def wait(self) -> Ended:
        """Wait until some of those that were given have ended, and return them; nothing where none is at work."""
        ...


@contextmanager
def in_process(job: Job) -> Generator["InProcess"]:
    """Yield this process as an engine."""
    with scratch(job.images) as folder:
        yield InProcess(SeriesWorker(job, folder))


class InProcess:
    """Do one series at a time, here. One that takes too long is not stopped, and one that ends the process ends all."""

    def __init__(self, worker: SeriesWorker) -> None:
        self.workers, self._worker = 1, worker
        self._given: list[Row] = []

    def has_room(self) -> bool:
        return not self._given

    def give(self, row: Row) -> None:
        self._given.append(row)

    def wait(self) -> Ended:
        given, self._given = self._given, []
        return [(row, self._worker.work(row)) for row in given]


@contextmanager
def on_ray(job: Job, *, workers: int, address: str | None, seconds: float) -> Generator["RayEngine"]:
    """Yield workers of Ray.

    Args:
        job: what they do.
        workers: how many, with as many processors each as the job has threads.
        address: of a cluster; None starts one on this machine, which ends with the block.
        seconds: that one series may take.

    Raises:
        PyrasegError: Ray is missing or there is no such cluster, or it has too few processors.
    """
    ray = require("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack:
        try:
            if address is None:
                own = {"num_cpus": workers * job.threads, "include_dashboard": False}
                ray.init(**own, object_store_memory=100 * 2**20, **quiet)
            else:
                _require_listening(address)
                ray.init(address=address, **quiet)
        except Exception as error:  # of all kinds, plain `Exception` among them
            if address is None:
                raise PyrasegError(
                    "Ray does not start on this machine: it may be busy, or short of memory. Try again, or look at the "
                    "logs below ray/session_latest in the folder for temporary files."
                ) from error
            raise PyrasegError(
                f"There is no way to a cluster at {address}. Start one with `ray start --head`, or leave out --address."
            ) from error
        stack.callback(ray.shutdown)
        there = int(ray.cluster_resources().get("CPU", 0))
        if there < workers * job.threads:
            raise PyrasegError(
                f"The cluster has {there} processors, and {workers} workers of {job.threads} threads need "
                f"{workers * job.threads}. Give fewer --workers."
            )
        engine = RayEngine(job, workers=workers, seconds=seconds)
        stack.callback(engine.close)
        yield engine


def _require_listening(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself asks for more than five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


class RayWorker:
    """Be a `SeriesWorker` in a process of Ray."""

    def __init__(self, job: Job) -> None:
        self._job, self._stack = job, ExitStack()

    @cached_property
    def _worker(self) -> SeriesWorker:
        return SeriesWorker(self._job, self._stack.enter_context(scratch(self._job.images)))

    def is_up(self) -> bool:
        """Load the model, and return that it is loaded; what keeps it from that is raised here."""
        return self._worker is not None

    def work(self, row: Row) -> Outcome:
        return self._worker.work(row)

    def close(self) -> None:
        """Remove what is left of images."""
        self._stack.close()


@dataclass(eq=False)
class _Member:
    """Hold a worker of Ray, what tells that it is up, the rows that it was given with what Ray is asked by, and since
    when it is at the first.
    """

    actor: Any
    up: Any
    given: deque[tuple[Row, Any]] = field(default_factory=deque)
    since: float = field(default_factory=time.monotonic)


class RayEngine:
    """Do series in actors of Ray, each of which holds the model; what a worker dies with, another does.

    Args:
        job: what they do.
        workers: how many.
        seconds: that one series may take. Its worker is ended then, and another takes its place.
    """

    def __init__(self, job: Job, *, workers: int, seconds: float) -> None:
        self.workers, self.seconds = workers, seconds
        self._ray = require("ray")
        self._job = self._ray.put(job)
        self._class = self._ray.remote(num_cpus=job.threads, max_restarts=0)(RayWorker)
        self._members = [self._member() for _ in range(workers)]
        self._deaths: Counter[str] = Counter()
        self._false_starts = 0
        self._metrics = _Metrics(workers)

    def has_room(self) -> bool:
        return any(len(member.given) <= AHEAD for member in self._members)

    def give(self, row: Row) -> None:
        member = min(self._members, key=lambda member: len(member.given))
        if not member.given:
            member.since = time.monotonic()
        member.given.append((row, member.actor.work.remote(row)))

    def wait(self) -> Ended:
        while busy := [member for member in self._members if member.given]:
            first = {member.given[0][1]: member for member in busy}
            ready, _ = self._ray.wait(list(first), timeout=1.0)
            ended = [one for answer in ready for one in self._ended(first[answer])]
            now = time.monotonic()
            for member in [member for member in self._members if member.given and now - member.since > self.seconds]:
                ended += self._stopped(member)
            if ended:
                self._metrics.count(ended)
                return ended
        return []

    def close(self) -> None:
        """Let the workers that have nothing to do remove what is left of images; the others leave it to the next."""
        idle = [member.actor.close.remote() for member in self._members if not member.given]
        self._ray.wait(idle, num_returns=len(idle), timeout=10.0)

    def _member(self) -> _Member:
        actor = self._class.remote(self._job)
        return _Member(actor, actor.is_up.remote())

    def _ended(self, member: _Member) -> Ended:
        """Return what became of the first series of a worker."""
        row, answer = member.given[0]
        try:
            outcome = self._ray.get(answer)
        except self._ray.exceptions.ActorDiedError as error:
            return self._died(member, error)
        except self._ray.exceptions.RayTaskError as error:  # raised outside `SeriesWorker.work`: no worker can be one
            raise PyrasegError(describe(error.cause)) from error
        except self._ray.exceptions.RayError as error:
            outcome = Outcome(AGAIN, row.series, row.images, reason=f"Ray lost it ({type(error).__name__}).")
        member.given.popleft()
        member.since = time.monotonic()
        return [(row, outcome)]

    def _died(self, member: _Member, error: Exception) -> Ended:
        """Replace a worker that is no more.

        What waited for it goes to others, and so does what it was at if it was not up yet. Else that is to be done
        again, after the rest, or has failed where many workers ended with it.

        Raises:
            PyrasegError: no worker can be started.
        """
        row, *waiting = self._replaced(member)
        ended = []
        if self._was_up(member):
            self._false_starts = 0
            self._deaths[row.id] += 1
            reason, state = "its worker was ended, by the system or by somebody.", AGAIN
            if self._deaths[row.id] >= MOST_DEATHS:
                reason = f"{MOST_DEATHS} workers ended with it: it may need more memory than there is."
                state = FAILED
            ended.append((row, Outcome(state, row.series, row.images, reason=reason)))
        else:
            waiting.insert(0, row)
            self._false_starts += 1
            if self._false_starts > MOST_FALSE_STARTS * self.workers:
                raise PyrasegError("Workers of Ray end before they are up. The log of Ray says why.") from error
        for one in waiting:
            self.give(one)
        return ended

    def _was_up(self, member: _Member) -> bool:
        """Return whether a worker that is no more had its model loaded."""
        try:
            return self._ray.get(member.up, timeout=0)
        except self._ray.exceptions.RayError:
            return False

    def _stopped(self, member: _Member) -> Ended:
        """End a worker whose series takes too long."""
        self._ray.kill(member.actor)
        row, *waiting = self._replaced(member)
        for one in waiting:
            self.give(one)
        reason = f"took longer than {self.seconds:g} s (--timeout)."
        return [(row, Outcome(FAILED, row.series, row.images, reason=reason))]

    def _replaced(self, member: _Member) -> list[Row]:
        """Put another worker in the place of one, and return what that one was given."""
        given = [row for row, _ in member.given]
        self._members[self._members.index(member)] = self._member()
        return given


class _Metrics:
    """Figures that Ray shows to Prometheus, on the metrics port of the machine that the command runs on."""

    def __init__(self, workers: int) -> None:
        metrics = require("ray.util.metrics")
        self._series = metrics.Counter("pyraseg_archive_series", "Series that have ended.", tag_keys=("state",))
        self._images = metrics.Counter("pyraseg_archive_images", "Images of series that are done.")
        bounds = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
        self._seconds = metrics.Histogram(
            "pyraseg_archive_seconds", "Seconds of a series, by what they were spent on.", bounds, tag_keys=("on",)
        )
        metrics.Gauge("pyraseg_archive_workers", "Workers that hold the model.").set(workers)

    def count(self, ended: Ended) -> None:
        """Count the ends of series."""
        for row, outcome in ended:
            self._series.inc(1, {"state": outcome.state})
            if outcome.state == DONE:
                self._images.inc(row.images)
            for name, seconds in outcome.seconds.items():
                self._seconds.observe(seconds, {"on": name})

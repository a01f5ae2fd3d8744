"""Jobs on a few threads, their results in the order in which they were given."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
_MAX_WORKERS = 6
"""Each worker holds a full-size RGB frame; six keep up with what eight decoder threads give."""
_AHEAD = 2
"""Jobs per worker that may be under way or wait; each holds a decoded frame."""


def usable_cpus() -> int:
    """Processors that this process may run on; fewer than the machine has inside many containers."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def default_workers() -> int:
    """Threads that convert and resize frames; 0 where a second thread would gain nothing.

    With AVX2 torch resizes 8-bit RGB on the calling thread alone, so several frames at a time pay. Its other kernels are
    threaded themselves, and more than one caller would only make them fight for the processors.
    """
    cpus = usable_cpus()
    if cpus < 2:
        return 0
    capability = getattr(torch.backends.cpu, "get_cpu_capability", lambda: "")()
    return min(cpus, _MAX_WORKERS) if capability in ("AVX2", "AVX512") else 1


class InOrder(Generic[T]):
    """Hands the results of jobs to ``deliver`` in the order of their submission, always in the caller's thread.

    At most ``2 * workers`` jobs are under way or wait, so what they hold stays bounded: a submission beyond waits for the
    oldest. An error of a job is raised where its result would have been delivered. A context manager; leaving it waits for
    the jobs that run and drops those that wait.

    workers: threads; 0 runs each job at its submission, which is the plain path.
    """

    def __init__(self, deliver: Callable[[T], None], workers: int) -> None:
        self._deliver = deliver
        self._pending: deque[Future[T]] = deque()
        self._limit = _AHEAD * workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="mmaudio-frames") if workers else None

    def submit(self, job: Callable[[], T]) -> None:
        """Runs ``job`` now or soon; delivers what is ready."""
        if self._threads is None:
            self._deliver(job())
            return
        while self._pending and (len(self._pending) >= self._limit or self._pending[0].done()):
            self._deliver(self._pending.popleft().result())
        self._pending.append(self._threads.submit(job))

    def drain(self) -> None:
        """Delivers everything that was submitted."""
        while self._pending:
            self._deliver(self._pending.popleft().result())

    def __enter__(self) -> InOrder[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pending.clear()
        # A bound method: its owner and this object would hold each other until the garbage collector comes by.
        self._deliver = _closed
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)


def _closed(result: object) -> None:
    raise RuntimeError("Jobs were submitted after the end.")

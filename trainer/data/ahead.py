"""What the steps of a training are made of, made by threads while earlier steps are worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD = 2
"""Steps that are made in advance."""
T = TypeVar("T")


def made_ahead(
    make: Callable[[int, int], T], steps: range, positions: Sequence[int], workers: int
) -> Generator[list[T], None, None]:
    """For every step of ``steps`` what ``make(step, position)`` gives for each of ``positions``, by ``workers`` threads.

    Raises:
        Exception: what ``make`` raises, when that step's turn has come.
    """
    waiting: deque[list[Future[T]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    try:
        for step in steps:
            waiting.append([pool.submit(make, step, position) for position in positions])
            if len(waiting) > AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

"""Batches of one rank, read ahead in the background while the last one is trained on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from mmaudio_core.errors import InputError

from .batch import Batch, collate
from .index import Index
from .order import Order, OrderSettings, Use
from .shards import Sample, Shard

READERS = 4
"""Shards read at the same time."""


class Stream:
    """Endless batches of the samples at ``positions`` of the global batch, from any step on.

    Of each lane that the positions belong to, at most ``window_shards`` + 1 shards are held; the one more is read in advance.

    positions: consecutive places of this rank (``order.rank_positions``). accumulation: batches per step, in order.
    ahead: batches made in advance. pin: page-locked memory, for a CUDA device. verify: compare every shard's hash when read.

    Raises:
        InputError: when the positions do not divide into ``accumulation`` batches or are not of the global batch.
    """

    def __init__(
        self,
        index: Index,
        settings: OrderSettings,
        positions: Sequence[int] | None = None,
        accumulation: int = 1,
        *,
        ahead: int = 2,
        readers: int = READERS,
        pin: bool = False,
        verify: bool = False,
    ) -> None:
        self.index, self.order = index, Order(index.shards, settings)
        self.positions = range(settings.global_batch) if positions is None else positions
        self.accumulation = accumulation
        known = range(settings.global_batch)
        if not self.positions or list(self.positions) != sorted(set(known).intersection(self.positions)):
            raise InputError(f"The positions {self.positions} were asked for; ascending ones of {known} are needed.")
        if accumulation < 1 or len(self.positions) % accumulation:
            raise InputError(
                f"{len(self.positions)} samples a step and rank do not divide into {accumulation} accumulated batches; "
                "change the global batch, the ranks or the accumulation."
            )
        self._ahead, self._readers, self._pin, self._verify = ahead, readers, pin, verify
        self.waited_s = 0.0
        """Seconds that batches were waited for, in all."""
        self.most_held = 0
        """The largest number of shards that were held at one time."""

    @property
    def lanes(self) -> int:
        """Lanes that this rank reads."""
        return len({self.order.lane_of(position) for position in self.positions})

    def batches(self, step: int = 0) -> Iterator[Batch]:
        """The batches from ``step`` on, ``accumulation`` for each step; close the iterator, or leave it, to end the reading.

        Raises:
            InputError, DownloadError: for a shard that cannot be used; the message names it.
        """
        ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=self._ahead)
        stop = threading.Event()
        worker = threading.Thread(target=self._work, args=(step, ready, stop), name="mmaudio data", daemon=True)
        worker.start()
        try:
            while True:
                began = time.perf_counter()
                item = ready.get()
                self.waited_s += time.perf_counter() - began
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            worker.join()

    def _work(self, step: int, ready: queue.Queue[Batch | BaseException], stop: threading.Event) -> None:
        def put(item: Batch | BaseException) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue

        shelf = _Shelf(self.index, self._readers, self._verify, stop)
        try:
            for batch in self._made(step, shelf):
                put(batch)
                if stop.is_set():
                    return
        except BaseException as error:  # raised where the batch is waited for
            put(error)
        finally:
            self.most_held = max(self.most_held, shelf.most)
            shelf.close()

    def _made(self, step: int, shelf: _Shelf) -> Iterator[Batch]:
        order = self.order
        cursors = {}
        for position in self.positions:
            lane = order.lane_of(position)
            if lane not in cursors:
                cursors[lane] = _Cursor(order.uses(lane, order.place(step, position)), shelf)
        size = len(self.positions) // self.accumulation
        while True:
            for first in range(0, len(self.positions), size):
                positions = self.positions[first : first + size]
                samples: list[Sample] = []
                for position, (shard, row) in zip(positions, order.batch(step, positions), strict=True):
                    cursors[order.lane_of(position)].advance(order.place(step, position))
                    samples.append(shelf.get(shard)[row])
                batch = collate(samples, positions, self.index.widths)
                yield batch.pinned() if self._pin else batch
            step += 1


@dataclass
class _Held:
    shard: Future[Shard]
    users: int


class _Shelf:
    """The shards that are held, each once for all who use it; reading begins when the first one takes it."""

    def __init__(self, index: Index, readers: int, verify: bool, stop: threading.Event) -> None:
        self._index, self._verify, self._stop = index, verify, stop
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="mmaudio shard")
        self._held: dict[int, _Held] = {}
        self.most = 0

    def take(self, shard: int) -> None:
        held = self._held.get(shard)
        if held is None:
            held = self._held[shard] = _Held(self._pool.submit(self._index.shards[shard].open, self._verify, self._stop), 0)
            self.most = max(self.most, len(self._held))
        held.users += 1

    def put_back(self, shard: int) -> None:
        held = self._held[shard]
        held.users -= 1
        if not held.users:
            held.shard.cancel()
            del self._held[shard]

    def get(self, shard: int) -> Shard:
        return self._held[shard].shard.result()

    def close(self) -> None:
        self._held.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Cursor:
    """Takes a lane's shards from the shelf one use ahead, and puts back those that it has passed."""

    def __init__(self, uses: Iterator[Use], shelf: _Shelf) -> None:
        self._uses, self._shelf = uses, shelf
        self._current: list[Use] = []
        self._next = self._take()

    def _take(self) -> Use:
        use = next(self._uses)
        self._shelf.take(use.shard)
        return use

    def advance(self, place: int) -> None:
        """Has what is needed at ``place`` taken; places only grow."""
        if any(use.last < place for use in self._current):
            passed = [use for use in self._current if use.last < place]
            self._current = [use for use in self._current if use.last >= place]
            for use in passed:
                self._shelf.put_back(use.shard)
        while self._next.first <= place:
            self._current.append(self._next)
            self._next = self._take()

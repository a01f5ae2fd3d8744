"""Batches with their draws, made in the background and brought to the device."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..data.batch import Batch
from ..data.stream import Stream
from .objective import Draws

AHEAD = 2
_POLL_S = 0.1
Make = Callable[[int, Batch], Draws]
"""(step, batch) -> its draws."""


class Feed:
    """The pieces of one step after another, from ``step`` on; to be used in a ``with`` block, which ends the reading.

    Drawing noise for a large batch takes a good part of a fast GPU's step, so it does not wait for the step to end.
    """

    def __init__(self, stream: Stream, make: Make, step: int, device: torch.device) -> None:
        self._stream, self._make, self._device = stream, make, device
        self._ready: queue.Queue[tuple[Batch, Draws] | BaseException] = queue.Queue(maxsize=AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(step,), name="mmaudio draws", daemon=True)
        self.waited_s = 0.0
        """Seconds that were waited for data, in all."""

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def pieces(self) -> Iterator[tuple[Batch, Draws]]:
        """The accumulated batches of the next step, with draws, on the device."""
        for _ in range(self._stream.accumulation):
            began = time.perf_counter()
            item = self._ready.get()
            self.waited_s += time.perf_counter() - began
            if isinstance(item, BaseException):
                raise item
            yield item[0].to(self._device), item[1].to(self._device)

    def _work(self, step: int) -> None:
        batches: Any = self._stream.batches(step)
        try:
            for number, batch in enumerate(batches):
                draws = self._make(step + number // self._stream.accumulation, batch)
                if not self._put((batch, draws.pinned() if self._device.type == "cuda" else draws)):
                    return
        except BaseException as error:  # raised where the batch is waited for
            self._put(error)
        finally:
            batches.close()

    def _put(self, item: tuple[Batch, Draws] | BaseException) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False

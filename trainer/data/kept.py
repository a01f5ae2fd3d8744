"""What was read of files, kept in memory up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """By number; beyond ``limit_bytes`` the least recently used go first. ``bytes_of`` says how large one is."""

    def __init__(self, limit_bytes: int, bytes_of: Callable[[T], int]) -> None:
        self._limit_bytes, self._bytes_of, self._held_bytes = limit_bytes, bytes_of, 0
        self._held: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, number: int, read: Callable[[], T]) -> T:
        """What is kept under ``number``, else what ``read`` gives; other threads do not wait for it."""
        with self._lock:
            if number in self._held:
                self._held.move_to_end(number)
                return self._held[number]
        value = read()
        with self._lock:
            if number not in self._held:
                self._held[number] = value
                self._held_bytes += self._bytes_of(value)
                while self._held_bytes > self._limit_bytes and self._held:
                    self._held_bytes -= self._bytes_of(self._held.popitem(last=False)[1])
        return value

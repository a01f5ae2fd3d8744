"""Videos of a manifest to train on: which ones depends on seed, step and place in the batch alone."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

import torch

from mmaudio_core.errors import InputError, MediaError
from mmaudio_core.spec.timing import MIN_DURATION_S

from ..data.manifest import Row, read_manifest, resolve
from ..data.report import BadRow, Reason
from ..engine.generators import generator_of

MAX_DRAWS = 64
"""Rows that are drawn for one place before the manifest is given up as unusable."""
AHEAD = 2
"""Steps whose clips are read in advance."""
ORDER, PLACE = 2, 3
"""Distinguish what is drawn: the order of rows, and what a place of the batch takes of its row."""
Item = TypeVar("Item")
log = logging.getLogger("mmaudio")


class UselessError(Exception):
    """A row cannot be used."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.detail = detail


def span(row: Row, duration_s: float) -> tuple[float, float]:
    """Where in its file a row begins, and how much of it is used, in seconds.

    Raises:
        UselessError: when that is shorter than a segment of Synchformer.
    """
    start_s = row.start_s or 0.0
    wanted_s = duration_s if row.end_s is None else min(duration_s, row.end_s - start_s)
    if wanted_s < MIN_DURATION_S:
        raise UselessError("too short", f"The row is {wanted_s:.2f} s long; {MIN_DURATION_S:g} s are needed.")
    return start_s, wanted_s


class Rows(Generic[Item]):
    """The rows of one split, made into items by ``read(number of the row, row, its file, generator)``.

    ``read`` is called from several threads and raises ``UselessError`` or ``MediaError`` for a row that cannot be used; such
    rows are passed over, another one taking the place, and listed in ``bad``.

    Raises:
        InputError: a manifest that cannot be read, or without the split.
    """

    def __init__(self, manifest: Path, split: str, read: Callable[[int, Row, Path, torch.Generator], Item]) -> None:
        self.bad: list[BadRow] = []
        self._manifest, self._read = manifest, read
        self._rows: list[Row] = []
        self._useless: set[int] = set()
        self._orders: dict[tuple[int, int], list[int]] = {}
        self._lock = threading.Lock()
        for row in read_manifest(manifest):
            if isinstance(row, BadRow):
                self.bad.append(row)
            elif row.split == split:
                self._rows.append(row)
        if not self._rows:
            raise InputError(f"The manifest {manifest} has no rows of the split {split!r}; name one that it has.")

    def __len__(self) -> int:
        """Rows of the split, usable or not."""
        return len(self._rows)

    def item(self, seed: int, step: int, position: int, batch: int) -> Item:
        """For one place in the batch of ``step`` = 1, 2, ...; every row comes once before one comes again.

        Raises:
            InputError: when no usable row is found.
        """
        generator = generator_of(seed, PLACE, step, position)
        epoch, place = divmod((step - 1) * batch + position, len(self._rows))
        number = self._order(seed, epoch)[place]
        for _ in range(MAX_DRAWS):
            if (item := self._item(number, generator)) is not None:
                return item
            number = int(torch.randint(len(self._rows), (), generator=generator))
        raise InputError(f"Of {MAX_DRAWS} rows drawn from {self._manifest} none can be used{self._last_bad()}.")

    def first(self, count: int, seed: int) -> list[Item]:
        """Items of the first ``count`` usable rows, fewer where there are fewer.

        Raises:
            InputError: when there is none.
        """
        found: list[Item] = []
        for number in range(len(self._rows)):
            if len(found) == count:
                break
            if (item := self._item(number, generator_of(seed, PLACE, 0, number))) is not None:
                found.append(item)
        if not found:
            raise InputError(f"None of {len(self)} rows of {self._manifest} can be used to measure on{self._last_bad()}.")
        return found

    def batches(self, seed: int, steps: range, batch: int, workers: int) -> Generator[list[Item], None, None]:
        """The items of every step of ``steps``, read by ``workers`` threads while the caller works on earlier ones."""
        waiting: deque[list[Future[Item]]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="rows")
        try:
            for step in steps:
                waiting.append([pool.submit(self.item, seed, step, position, batch) for position in range(batch)])
                if len(waiting) > AHEAD:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _order(self, seed: int, epoch: int) -> list[int]:
        with self._lock:
            if (seed, epoch) not in self._orders:
                if len(self._orders) > 2:  # steps that are read in advance reach over the end of an epoch
                    del self._orders[min(self._orders)]
                self._orders[seed, epoch] = torch.randperm(len(self), generator=generator_of(seed, ORDER, epoch)).tolist()
            return self._orders[seed, epoch]

    def _item(self, number: int, generator: torch.Generator) -> Item | None:
        row = self._rows[number]
        # Of its own and drawn first, so that what another row draws does not depend on how far a bad one came.
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        with self._lock:
            if number in self._useless:
                return None
        path = resolve(row, self._manifest)
        try:
            if not path.is_file():
                raise UselessError("missing", "There is no such file.")
            return self._read(number, row, path, own)
        except UselessError as problem:
            bad = BadRow(row.line, row.id, row.path, problem.reason, problem.detail)
        except MediaError as error:
            bad = BadRow(row.line, row.id, row.path, "unreadable", str(error))
        with self._lock:
            if number not in self._useless:
                self._useless.add(number)
                self.bad.append(bad)
                # Recordings in a manifest for everything are no fault worth a line each.
                level = logging.DEBUG if bad.reason == "no video" else logging.INFO
                log.log(level, "%s is left out: %s. %s", bad.path, bad.reason, bad.detail)
        return None

    def _last_bad(self) -> str:
        return f" ({self.bad[-1].path}: {self.bad[-1].reason}. {self.bad[-1].detail})" if self.bad else ""

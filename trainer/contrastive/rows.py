"""Videos of a manifest to train on: which ones depends on seed, step and place in the batch alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Generic, TypeVar

import torch

from mmaudio_core.errors import InputError
from mmaudio_core.spec.timing import MIN_DURATION_S

from ..data.ahead import made_ahead
from ..data.manifest import Row
from ..data.report import BadRow
from ..data.usable import MAX_DRAWS, UsableRows, UselessError
from ..engine.generators import generator_of

ORDER, PLACE = 2, 3
"""Distinguish what is drawn: the order of rows, and what a place of the batch takes of its row."""
Item = TypeVar("Item")


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
        self._rows, self._read = UsableRows(manifest, split), read
        self._orders: dict[tuple[int, int], list[int]] = {}
        self._lock = threading.Lock()

    @property
    def bad(self) -> list[BadRow]:
        """Rows that were left out so far."""
        return self._rows.bad

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
        raise InputError(f"Of {MAX_DRAWS} rows drawn from {self._rows.manifest} none can be used{self._rows.last_bad()}.")

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
            of = f"{len(self)} rows of {self._rows.manifest}"
            raise InputError(f"None of {of} can be used to measure on{self._rows.last_bad()}.")
        return found

    def batches(self, seed: int, steps: range, batch: int, workers: int) -> Generator[list[Item], None, None]:
        """The items of every step of ``steps``, read by ``workers`` threads while the caller works on earlier ones."""
        return made_ahead(lambda step, position: self.item(seed, step, position, batch), steps, range(batch), workers)

    def _order(self, seed: int, epoch: int) -> list[int]:
        with self._lock:
            if (seed, epoch) not in self._orders:
                if len(self._orders) > 2:  # steps that are read in advance reach over the end of an epoch
                    del self._orders[min(self._orders)]
                self._orders[seed, epoch] = torch.randperm(len(self), generator=generator_of(seed, ORDER, epoch)).tolist()
            return self._orders[seed, epoch]

    def _item(self, number: int, generator: torch.Generator) -> Item | None:
        # Of its own and drawn first, so that what another row draws does not depend on how far a bad one came.
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return self._rows.read(number, lambda row, path: self._read(number, row, path, own))

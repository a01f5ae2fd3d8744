"""The loop of a run in steps: updates, reports, measurements, checkpoints, and an end when it is asked for."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mmaudio_core.cli.progress import Bars
from mmaudio_core.errors import MMAudioError

from .distributed import Ranks, barrier, mean_over_ranks
from .log import Log
from .signals import StopRequest

log = logging.getLogger("mmaudio")


@dataclass(frozen=True)
class Rhythm:
    """steps: in all. ``..._every``: steps between lines of the log, measurements, checkpoints; 0 means never."""

    steps: int
    log_every: int
    measure_every: int
    save_every: int


class Work(Protocol):
    """What is done in a step; ``update`` by all ranks, the others by the first one."""

    def update(self, step: int, batch: Any) -> dict[str, Tensor]:
        """One step; scalars for the log, of this rank, "loss/..." and the like."""

    def rate(self) -> float:
        """The learning rate of the last step."""

    def measure(self, step: int, log: Log) -> None:
        """Measures on what is held out, and logs it."""

    def save(self, step: int) -> None:
        """Writes a checkpoint."""

    def finish(self, step: int) -> Path:
        """Writes the result."""


class Steps:
    """One process's part of a run in ``folder``."""

    def __init__(self, work: Work, rhythm: Rhythm, folder: Path, ranks: Ranks, quiet: bool = False) -> None:
        self.work, self.rhythm, self.ranks, self._folder = work, rhythm, ranks, folder
        self.bars = Bars(quiet or not ranks.first)
        self.log: Log | None = None
        self._waited_s = 0.0
        self._since_s = time.monotonic()

    def to_the_end(self, first: int, batches: Iterator[Any], stop: StopRequest) -> int:
        """Steps ``first`` + 1 and on with what ``batches`` gives for them; returns the exit code (0, or a signal's).

        Raises:
            MMAudioError: when a scalar is not finite; the last checkpoint was made before.
        """
        rhythm, step = self.rhythm, first
        if self.ranks.first:
            self.log = Log(self._folder, first)
        for step in range(first + 1, rhythm.steps + 1):
            asked_s = time.monotonic()
            batch = next(batches)
            self._waited_s += time.monotonic() - asked_s
            scalars = self.work.update(step, batch)
            last, stopping = step == rhythm.steps, stop.agreed(self.ranks)
            saving = last or stopping or _due(step, rhythm.save_every)
            if saving or _due(step, rhythm.log_every):
                self._report(step, scalars)
            if saving:  # first: what goes wrong in a measurement must not cost the steps before it
                self._save(step)
            if (last or _due(step, rhythm.measure_every)) and self.log is not None:
                self.work.measure(step, self.log)
            self.bars("train", step - first, rhythm.steps - first)
            if stopping and not last:
                log.info("Stopped after step %d; go on with --resume.", step)
                return stop.exit_code
        if self.ranks.first:
            log.info("%s", self.work.finish(step))
        barrier(self.ranks)
        return 0

    def close(self) -> None:
        self.bars.close()
        if self.log is not None:
            self.log.close()

    def _report(self, step: int, scalars: dict[str, Tensor]) -> None:
        names = sorted(scalars)
        values = mean_over_ranks(torch.stack([scalars[name].float() for name in names]), self.ranks).tolist()
        found = dict(zip(names, values, strict=True))
        if not all(map(math.isfinite, values)):
            worst = next(name for name, value in found.items() if not math.isfinite(value))
            raise MMAudioError(
                f"At step {step} {worst} is {found[worst]}. The last checkpoint was made before; go on from it with --resume "
                "and a lower optim.lr, or set optim.clip_norm."
            )
        now_s = time.monotonic()
        found["time/data_share"] = self._waited_s / max(1e-9, now_s - self._since_s)
        self._waited_s, self._since_s = 0.0, now_s
        found["rate"] = self.work.rate()
        if self.log is not None:
            self.log.scalars(step, found)

    def _save(self, step: int) -> None:
        if self.ranks.first:
            self.work.save(step)
        barrier(self.ranks)


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0

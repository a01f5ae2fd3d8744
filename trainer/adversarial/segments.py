"""Pieces of recordings, and of videos' sound, to train on: which ones depends on seed, step and place in the batch alone."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from mmaudio_core.errors import InputError, MediaError
from mmaudio_core.media.resample import load_audio

from ..data.manifest import Row, read_manifest, resolve
from ..data.probe import SILENT_PEAK
from ..data.report import BadRow
from ..engine.generators import generator_of

PEAK = 0.95
"""Recordings are scaled to this largest sample for training (arXiv 2412.15322, appendix)."""
MAX_DRAWS = 64
"""Recordings that are drawn for one segment before the manifest is given up as unusable."""
AHEAD = 2
"""Steps whose segments are made in advance."""
log = logging.getLogger("mmaudio")


class Segments:
    """Segments of ``samples`` N at ``sample_rate_hz`` from the rows of one split.

    Rows that cannot be used (unreadable, silent, shorter than a segment) are passed over and listed in ``bad``. Decoded
    recordings are kept in memory up to ``cache_bytes``, the least recently used going first.
    """

    def __init__(self, manifest: Path, split: str, sample_rate_hz: int, samples: int, cache_bytes: int = 0) -> None:
        self.sample_rate_hz, self.samples = sample_rate_hz, samples
        self.bad: list[BadRow] = []
        self._manifest, self._cache_bytes = manifest, cache_bytes
        self._rows: list[Row] = []
        self._cache: OrderedDict[int, Tensor] = OrderedDict()
        self._held_bytes = 0
        self._useless: set[int] = set()
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

    def segment(self, seed: int, step: int, position: int) -> Tensor:
        """float32 (N,), of a recording with the largest sample 0.95, for one place in the batch of ``step``.

        Raises:
            InputError: when no usable recording is found.
        """
        generator = generator_of(seed, step, position)
        for _ in range(MAX_DRAWS):
            index = int(torch.randint(len(self._rows), (), generator=generator))
            sound = self._sound(index)
            if sound is not None:
                start = int(torch.randint(sound.numel() - self.samples + 1, (), generator=generator))
                return sound[start : start + self.samples].clone()
        reason = f" ({self.bad[-1].path}: {self.bad[-1].reason})" if self.bad else ""
        raise InputError(
            f"Of {MAX_DRAWS} recordings drawn from {self._manifest} none can be used{reason}; a segment takes "
            f"{self.samples / self.sample_rate_hz:.2f} s of sound."
        )

    def batch(self, seed: int, step: int, positions: Sequence[int]) -> Tensor:
        """float32 (B, N) for the places ``positions`` of the batch of ``step``."""
        return torch.stack([self.segment(seed, step, position) for position in positions])

    def batches(self, seed: int, steps: range, positions: Sequence[int], workers: int) -> Generator[Tensor, None, None]:
        """``batch`` for every step of ``steps``, made by ``workers`` threads while the caller works on earlier ones."""
        waiting: deque[list[Future[Tensor]]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="segments")
        try:
            for step in steps:
                waiting.append([pool.submit(self.segment, seed, step, position) for position in positions])
                if len(waiting) > AHEAD:
                    yield torch.stack([future.result() for future in waiting.popleft()])
            while waiting:
                yield torch.stack([future.result() for future in waiting.popleft()])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _sound(self, index: int) -> Tensor | None:
        """The whole recording (N,), or None where it cannot be used."""
        with self._lock:
            if index in self._useless:
                return None
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        try:
            sound = self._decoded(self._rows[index])
        except _UselessError as problem:
            with self._lock:
                if index not in self._useless:
                    self._useless.add(index)
                    self.bad.append(problem.bad)
                    log.info("%s is left out: %s. %s", problem.bad.path, problem.bad.reason, problem.bad.detail)
            return None
        with self._lock:
            if index not in self._cache:
                self._cache[index] = sound
                self._held_bytes += sound.numel() * sound.element_size()
                while self._held_bytes > self._cache_bytes and self._cache:
                    _, gone = self._cache.popitem(last=False)
                    self._held_bytes -= gone.numel() * gone.element_size()
        return sound

    def _decoded(self, row: Row) -> Tensor:
        path = resolve(row, self._manifest)
        if not path.is_file():
            raise _UselessError(BadRow(row.line, row.id, row.path, "missing"))
        try:
            sound, rate_hz = load_audio(path, self.sample_rate_hz)
        except MediaError as error:
            raise _UselessError(BadRow(row.line, row.id, row.path, "unreadable", str(error))) from error
        last = None if row.end_s is None else round(row.end_s * rate_hz)
        sound = sound[round((row.start_s or 0.0) * rate_hz) : last]
        if sound.numel() < self.samples:
            detail = f"{sound.numel() / rate_hz:.2f} s of sound."
            raise _UselessError(BadRow(row.line, row.id, row.path, "too short", detail))
        peak = float(sound.abs().max())
        if not SILENT_PEAK <= peak < float("inf"):  # NaN too
            raise _UselessError(BadRow(row.line, row.id, row.path, "silent"))
        return (sound * (PEAK / peak)).contiguous()


class _UselessError(Exception):
    def __init__(self, bad: BadRow) -> None:
        super().__init__(bad.reason)
        self.bad = bad

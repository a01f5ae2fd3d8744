"""Pieces of recordings, and of videos' sound, to train on: which ones depends on seed, step and place in the batch alone."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.media.resample import load_audio

from ..data.ahead import made_ahead
from ..data.kept import Kept
from ..data.manifest import Row
from ..data.probe import SILENT_PEAK
from ..data.report import BadRow
from ..data.usable import MAX_DRAWS, UsableRows, UselessError
from ..engine.generators import generator_of

PEAK = 0.95
"""Recordings are scaled to this largest sample for training (arXiv 2412.15322, appendix)."""


class Segments:
    """Segments of ``samples`` N at ``sample_rate_hz`` from the rows of one split.

    Rows that cannot be used (unreadable, silent, shorter than a segment) are passed over and listed in ``bad``. Decoded
    recordings are kept in memory up to ``cache_bytes``, the least recently used going first.
    """

    def __init__(self, manifest: Path, split: str, sample_rate_hz: int, samples: int, cache_bytes: int = 0) -> None:
        self.sample_rate_hz, self.samples = sample_rate_hz, samples
        self._rows = UsableRows(manifest, split)
        self._cache: Kept[Tensor] = Kept(cache_bytes, lambda sound: sound.numel() * sound.element_size())

    @property
    def bad(self) -> list[BadRow]:
        """Rows that were left out so far."""
        return self._rows.bad

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
            number = int(torch.randint(len(self._rows), (), generator=generator))
            sound = self._sound(number)
            if sound is not None:
                start = int(torch.randint(sound.numel() - self.samples + 1, (), generator=generator))
                return sound[start : start + self.samples].clone()
        raise InputError(
            f"Of {MAX_DRAWS} recordings drawn from {self._rows.manifest} none can be used{self._rows.last_bad()}; a segment "
            f"takes {self.samples / self.sample_rate_hz:.2f} s of sound."
        )

    def batch(self, seed: int, step: int, positions: Sequence[int]) -> Tensor:
        """float32 (B, N) for the places ``positions`` of the batch of ``step``."""
        return torch.stack([self.segment(seed, step, position) for position in positions])

    def batches(self, seed: int, steps: range, positions: Sequence[int], workers: int) -> Generator[Tensor, None, None]:
        """``batch`` for every step of ``steps``, made by ``workers`` threads while the caller works on earlier ones."""
        with closing(made_ahead(lambda step, position: self.segment(seed, step, position), steps, positions, workers)) as made:
            for segments in made:
                yield torch.stack(segments)

    def _sound(self, number: int) -> Tensor | None:
        """The whole recording (N,), or None where it cannot be used."""
        return self._rows.read(number, lambda row, path: self._cache.get(number, lambda: self._decoded(row, path)))

    def _decoded(self, row: Row, path: Path) -> Tensor:
        sound, rate_hz = load_audio(path, self.sample_rate_hz)
        last = None if row.end_s is None else round(row.end_s * rate_hz)
        sound = sound[round((row.start_s or 0.0) * rate_hz) : last]
        if sound.numel() < self.samples:
            raise UselessError("too short", f"{sound.numel() / rate_hz:.2f} s of sound.")
        peak = float(sound.abs().max())
        if not SILENT_PEAK <= peak < float("inf"):  # NaN too
            raise UselessError("silent")
        return (sound * (PEAK / peak)).contiguous()

"""Random streams of a seed, one for each purpose: what one part draws does not move what another does."""

from __future__ import annotations

import zlib

import numpy as np


class Streams:
    def __init__(self, seed: int, world: str) -> None:
        self._key = (seed, zlib.crc32(world.encode()))

    def __call__(self, purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((*self._key, zlib.crc32(purpose.encode())))))

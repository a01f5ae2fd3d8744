"""Choosing the faster of two ways to compute the same by trying them where they will run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from statistics import median

import torch

from ..devices import event_ms

log = logging.getLogger("mmaudio")

WARM_UP, TRIALS, CALLS = 2, 5, 4


def device_ms(function: Callable[[], object], device: torch.device) -> float:
    """Median milliseconds of a call on a CUDA device."""
    event_ms(function, device, WARM_UP)
    return median(event_ms(function, device, CALLS) / CALLS for _ in range(TRIALS))


class Fastest:
    """Remembers which of several named functions is the fastest for a key; measured once, on the first use of the key."""

    def __init__(self, what: str, timer: Callable[[Callable[[], object], torch.device], float] = device_ms) -> None:
        self._what, self._timer = what, timer
        self._chosen: dict[Hashable, str] = {}

    def __call__(self, key: Hashable, candidates: Mapping[str, Callable[[], object]], device: torch.device) -> str:
        """The name of the fastest of ``candidates`` for ``key`` on ``device``."""
        if key not in self._chosen:
            times = {name: self._timer(function, device) for name, function in candidates.items()}
            self._chosen[key] = min(times, key=lambda name: times[name])
            measured = ", ".join(f"{name} {spent:.3f} ms" for name, spent in times.items())
            log.info("%s for %s: %s (%s).", self._what, key, self._chosen[key], measured)
        return self._chosen[key]

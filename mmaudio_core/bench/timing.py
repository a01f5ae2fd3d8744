"""Medians of repeated calls, by device events on CUDA and by the clock elsewhere, and what the device can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles

import torch

from ..devices import event_ms
from ..pipeline.report import peak_bytes, reset_peak
from .rows import Ceilings

WARM_UPS, MOST_CALLS, LONG_S = 4, 40, 5.0
MATRIX_SIDES = {"cuda": 8192, "cpu": 2048, "mps": 4096}
COPY_BYTES = {"cuda": 2 << 30, "cpu": 256 << 20, "mps": 512 << 20}


@dataclass(frozen=True)
class Timing:
    """Seconds of a call, the distance between their quarters, and the most memory during the calls."""

    median_s: float
    spread_s: float
    peak_bytes: int


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure(call: Callable[[], object], device: torch.device, budget_s: float, first_s: float | None = None) -> Timing:
    """Calls ``call`` as often as ``budget_s`` allows, at least twice, or three times if it is short; no first call is counted.

    first_s: what a first call took, if there was one.
    """
    once = _seconds(call, device) if first_s is None else first_s
    warm_ups = 0 if once > budget_s / 4 else WARM_UPS
    for _ in range(warm_ups):
        once = min(once, _seconds(call, device))
    fewest = 2 if once > LONG_S else 3
    count = max(fewest, min(MOST_CALLS, int(budget_s / max(once, 1e-6))))
    reset_peak(device)
    times = [_seconds(call, device) for _ in range(count)]
    first, _, third = quantiles(times, n=4, method="inclusive")
    return Timing(median(times), third - first, peak_bytes(device))


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        return event_ms(call, device) / 1e3
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - began


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measures a large matrix product in ``dtype`` and a copy within the device's memory."""
    side = MATRIX_SIDES[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = measure(lambda: a @ b, device, 1.0)
    source = torch.ones(COPY_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    copy = measure(lambda: target.copy_(source), device, 1.0)
    name = str(dtype).removeprefix("torch.")
    return Ceilings(name, 2 * side**3 / product.median_s, 2 * source.numel() * 4 / copy.median_s)

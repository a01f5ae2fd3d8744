"""Runs a benchmark: every variant, stage and backend in one go, so that ratios come from one run."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, MMAudioError
from .made_up import variant_names
from .rows import PLAIN, Row
from .stages import STAGES, Stages, speed_of
from .timing import measure

log = logging.getLogger("mmaudio")


@dataclass(frozen=True)
class Wanted:
    """What to measure. budget_s: seconds for each row's calls; limit_s: after which no further row is begun."""

    variants: tuple[str, ...]
    stages: tuple[str, ...]
    backends: tuple[str, ...]
    device: torch.device
    dtype: torch.dtype
    duration_s: float = 8.0
    budget_s: float = 2.0
    limit_s: float = 480.0

    def __post_init__(self) -> None:
        for what, given, known in (
            ("variant", self.variants, variant_names()),
            ("stage", self.stages, STAGES),
        ):
            if unknown := [name for name in given if name not in known]:
                raise InputError(f"There is no {what} {unknown[0]!r}; known are {', '.join(known)}.")
        for backend in self.backends:
            speed_of(backend)


def run(wanted: Wanted, report: Callable[[Row], None], clock: Callable[[], float] = time.monotonic) -> list[str]:
    """Measures row by row and hands each to ``report``; returns sentences about those that could not be had.

    The reference of the errors is the plain path in float32 on the same device, run once for each stage.
    """
    end = clock() + wanted.limit_s
    left_out: list[str] = []
    for variant in wanted.variants:
        references: dict[str, tuple[Tensor, float]] = {}
        for backend in (PLAIN, *(b for b in wanted.backends if b != PLAIN)):
            counted = backend in wanted.backends
            try:
                left_out += _backend(wanted, variant, backend, counted, references, end, report, clock)
            except MMAudioError as error:
                left_out.append(f"{variant}, {backend}: {error}")
            _let_go(wanted.device)
    return left_out


def _backend(
    wanted: Wanted,
    variant: str,
    backend: str,
    counted: bool,
    references: dict[str, tuple[Tensor, float]],
    end: float,
    report: Callable[[Row], None],
    clock: Callable[[], float],
) -> list[str]:
    left_out: list[str] = []
    if backend == PLAIN:
        exact = Stages(variant, wanted.device, torch.float32, wanted.duration_s, PLAIN)
        for stage in wanted.stages:
            if clock() < end:
                references[stage] = _reference(exact.call(stage))
        del exact
        _let_go(wanted.device)
    if not counted:
        return left_out
    stages = Stages(variant, wanted.device, wanted.dtype, wanted.duration_s, backend)
    for stage in wanted.stages:
        if clock() >= end or stage not in references:
            left_out.append(f"{variant}, {stage}, {backend}: no time was left.")
            continue
        reference, flops = references[stage]
        call = stages.call(stage)
        began = time.perf_counter()
        error = relative_error(call(), reference)
        first_s = time.perf_counter() - began
        timing = measure(call, wanted.device, min(wanted.budget_s, max(0.0, end - clock())), first_s)
        report(
            Row(
                variant=variant,
                stage=stage,
                backend=backend,
                device=str(wanted.device),
                dtype=str(wanted.dtype).removeprefix("torch."),
                duration_s=wanted.duration_s,
                median_s=timing.median_s,
                spread_s=timing.spread_s,
                peak_bytes=timing.peak_bytes,
                error_rel=error,
                flops=flops,
            )
        )
    return left_out


def relative_error(got: Tensor, reference: Tensor) -> float:
    """|got - reference| / |reference| in float64, NaN where something is not a number."""
    wide = reference.double()
    return float((got.cpu().double() - wide).norm() / wide.norm())


def _reference(call: Callable[[], Any]) -> tuple[Tensor, float]:
    """The plain float32 result on the CPU, and the floating-point operations that its products count."""
    try:
        from torch.utils.flop_counter import FlopCounterMode

        counter: Any = FlopCounterMode(display=False)
    except ImportError:
        return call().cpu(), 0.0
    with counter:
        result = call()
    return result.cpu(), float(counter.get_total_flops())


def _let_go(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def parse_names(text: str, everything: Sequence[str]) -> tuple[str, ...]:
    """ "a,b" as ("a", "b"); "all" is everything."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    return tuple(everything) if names == ("all",) else names

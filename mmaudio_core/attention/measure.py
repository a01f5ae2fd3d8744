"""How fast a backend is, and whether what it gives is attention."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import sdpa
from .protocol import Backend, first_line

Timer = Callable[[Callable[[], object], torch.device], float]
"""(call, device) -> milliseconds of one call."""
WARM_UP, ROUNDS, CALLS = 3, 5, 10
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest error of a row of the result, relative to the rows' usual length. float32 leaves room for TF32."""
INEXACT = 0.3
"""The same for a backend that quantises: what is worse is no attention at all."""


class Shape(NamedTuple):
    """Batch B, heads H, queries Nq, keys Nk."""

    batch: int
    heads: int
    queries: int
    keys: int

    def __str__(self) -> str:
        return f"B={self.batch} H={self.heads} Nq={self.queries} Nk={self.keys}"


def inputs(device: torch.device, dtype: torch.dtype, head_dim: int, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Normally distributed q (B, H, Nq, d), k, v (B, H, Nk, d), the same ones each time; global random state is left alone."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(tokens: int) -> Tensor:
        # In memory (B, N, H, d), as projections leave them.
        size = (shape.batch, tokens, shape.heads, head_dim)
        return torch.randn(size, generator=generator, device=device).to(dtype).transpose(1, 2)

    return draw(shape.queries), draw(shape.keys), draw(shape.keys)


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """sdpa-math in at least float32, one element of the batch at a time, because it holds all scores: -> (B, Nq, H * d)."""
    wide = torch.promote_types(q.dtype, torch.float32)
    one = [sdpa.attend_with("math", *(t[i : i + 1].to(wide) for t in (q, k, v))) for i in range(q.shape[0])]
    return torch.cat(one)


def error(out: Tensor, expected: Tensor, heads: int) -> float:
    """The largest error of one head's row (d values), relative to the rows' root mean square length; NaN where out has any."""
    expected = expected.unflatten(-1, (heads, -1))
    rows = (out.to(expected.dtype).unflatten(-1, (heads, -1)) - expected).norm(dim=-1)
    return (rows.max() / expected.norm(dim=-1).square().mean().sqrt()).item()


def fault(backend: Backend, q: Tensor, k: Tensor, v: Tensor, expected: Tensor) -> str | None:
    """Why ``backend`` is not to be used on these tensors: it fails, or gives something else than attention; None if neither."""
    try:
        out = backend.run(q, k, v)
        if out.shape != expected.shape or out.dtype != q.dtype:
            return f"it gives {tuple(out.shape)} of {out.dtype} where {tuple(expected.shape)} of {q.dtype} was to come"
        found = error(out, expected, q.shape[1])
    except Exception as problem:  # broken binaries raise anything
        return f"it fails at its first call ({type(problem).__name__}: {first_line(problem)})"
    allowed = TOLERANCE[q.dtype] if backend.exact else INEXACT
    # Turned around so that a NaN is no match.
    return None if found <= allowed else f"its result is off by {found:.1e} where at most {allowed:.0e} is rounding"


def time_ms(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call from Python, launch included: the fastest of some rounds after a warm-up."""
    for _ in range(WARM_UP):
        call()
    return min(_round_ms(call, device) for _ in range(ROUNDS)) / CALLS


def time_in_graph_ms(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call inside a CUDA graph, where launches cost next to nothing.

    Raises:
        RuntimeError: torch's own, where the call cannot be captured.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads of a host may use the GPU meanwhile.
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for _ in range(CALLS):
            call()
    graph.replay()
    return min(_round_ms(graph.replay, device, calls=1) for _ in range(ROUNDS)) / CALLS


def _round_ms(call: Callable[[], object], device: torch.device, calls: int = CALLS) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - started) * 1e3
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

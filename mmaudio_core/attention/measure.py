"""How fast a backend is, and whether what it gives is attention."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..devices import event_ms
from ..errors import first_line
from . import sdpa
from .protocol import Backend

Timer = Callable[[Callable[[], object], torch.device], float]
"""(call, device) -> milliseconds of one call."""
WARM_UP, ROUNDS, CALLS = 3, 5, 10
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest error of a row of the result, relative to the rows' usual length. float32 leaves room for TF32."""
INEXACT = 0.3
"""The same for a backend that quantises: what is worse is no attention at all."""
MOST_SCORES, FEWEST_QUERIES = 1 << 24, 16
"""Scores that the reference may hold, 64 MiB, which are all of a usual clip; longer ones are compared at fewer queries."""


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


class Trial(NamedTuple):
    """What is tried: q (B, H, Nq, d), k and v (B, H, Nk, d); ``expected`` (B, R, H * d) at the queries ``rows``."""

    q: Tensor
    k: Tensor
    v: Tensor
    rows: Tensor
    expected: Tensor


def trial(device: torch.device, dtype: torch.dtype, head_dim: int, shape: Shape) -> Trial:
    """``inputs``, and the reference at all queries, or evenly spread ones where all would take too much memory."""
    q, k, v = inputs(device, dtype, head_dim, shape)
    rows = checked_queries(shape).to(device)
    return Trial(q, k, v, rows, reference(q[:, :, rows], k, v))


def checked_queries(shape: Shape) -> Tensor:
    """The queries at which a result is compared, int64 (R,), the first and the last among them."""
    count = min(shape.queries, max(FEWEST_QUERIES, MOST_SCORES // max(1, shape.heads * shape.keys)))
    return torch.arange(count) * (shape.queries - 1) // max(1, count - 1)


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


def fault(backend: Backend, tried: Trial) -> str | None:
    """Why ``backend`` is not to be used on these tensors: it fails, or gives something else than attention; None if neither."""
    q, k, v, rows, expected = tried
    shape = (q.shape[0], q.shape[2], expected.shape[2])
    try:
        out = backend.run(q, k, v)
        if out.shape != shape or out.dtype != q.dtype:
            return f"it gives {tuple(out.shape)} of {out.dtype} where {shape} of {q.dtype} was to come"
        found = error(out[:, rows], expected, q.shape[1])
        finite = bool(out.isfinite().all())
    except Exception as problem:  # broken binaries raise anything
        return f"it fails at its first call ({type(problem).__name__}: {first_line(problem)})"
    allowed = TOLERANCE[q.dtype] if backend.exact else INEXACT
    # Turned around so that a NaN is no match.
    if not found <= allowed:
        return f"its result is off by {found:.1e} where at most {allowed:.0e} is rounding"
    return None if finite else "its result is not finite everywhere"


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
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
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
    return event_ms(call, device, calls)

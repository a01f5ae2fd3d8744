"""What the benchmarks of all kernels share: variants of one computation, timed, checked, and printed as a table.

A benchmark module has ``run(device, dtype, quick) -> list[Row]`` and calls ``measure`` once for each of its shapes.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Result = Tensor | Sequence[Tensor]
CALLS_PER_GRAPH = 20


@dataclass(frozen=True)
class Row:
    """One variant on one shape. ``graph_us`` is None where nothing was replayed from a CUDA graph.

    call_us: median of one call from Python, launch included (CUDA events; wall clock on the CPU).
    graph_us: median of one call out of ``CALLS_PER_GRAPH`` in a CUDA graph: what it costs where launches are free.
    error: largest deviation from the float64 reference, relative to that one's largest element.
    moved_bytes: what has to be read and written at least.
    """

    case: str
    variant: str
    call_us: float
    graph_us: float | None
    error: float
    moved_bytes: int

    @property
    def gb_per_s(self) -> float:
        return self.moved_bytes / (self.graph_us or self.call_us) * 1e-3


def bytes_of(*tensors: Tensor | None) -> int:
    """Size of the tensors' elements, each counted once."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def compiled(function: Callable[..., Result], device: str) -> Callable[..., Result] | None:
    """``function`` under torch.compile, on CUDA only: on a CPU that needs a C++ compiler and says nothing about a GPU."""
    return torch.compile(function, dynamic=False) if device == "cuda" else None


def kernel(kind: str, stem: str, name: str, device: str) -> Callable[..., Any] | None:
    """``name`` of ``mmaudio_core.kernels.<kind>.<stem>``, kind "triton" or "cuda"; None where it cannot run or is not there."""
    if device != "cuda":
        return None
    try:
        return getattr(importlib.import_module(f"mmaudio_core.kernels.{kind}.{stem}"), name, None)
    except ImportError:
        return None


def variants(
    stem: str, name: str, reference: Callable[..., Result], device: str, kinds: Sequence[str] = ("triton", "cuda")
) -> dict[str, Callable[..., Any] | None]:
    """What there is of one function, ``measure``'s way: the reference eager and compiled, and its kernels."""
    kernels = {kind: kernel(kind, stem, name, device) for kind in kinds}
    return {"eager": reference, "compiled": compiled(reference, device), **kernels}


def measure(
    case: str,
    functions: Mapping[str, Callable[..., Any] | None],
    inputs: Sequence[Any],
    moved_bytes: int,
    quick: bool = False,
    reference: Callable[..., Result] | None = None,
) -> list[Row]:
    """A row for every function that is not None, each called with ``inputs``.

    ``reference`` (default: the first function) gives the expected result from the inputs in float64. The inputs stay in the
    GPU's cache between calls, as activations do inside the model; a rate above that of the memory says so.
    """
    judge = reference or next(iter(functions.values()))
    assert judge is not None
    if torch.cuda.is_available():
        torch.compiler.reset()  # else a function stays eager after a few shapes
    with torch.no_grad():
        expected = judge(*(i.double() if isinstance(i, Tensor) and i.is_floating_point() else i for i in inputs))
        rows = []
        for variant, function in functions.items():
            if function is None:
                continue
            call_us, graph_us = time_us(lambda f=function: f(*inputs), quick)
            rows.append(Row(case, variant, call_us, graph_us, deviation(function(*inputs), expected), moved_bytes))
    return rows


def deviation(actual: Result, expected: Result) -> float:
    """Largest difference over all outputs, relative to the largest expected element of that output."""
    pairs = [(actual, expected)] if isinstance(actual, Tensor) else list(zip(actual, expected, strict=True))
    return max(((a.double() - e).abs().max() / e.abs().max().clamp_min(1e-30)).item() for a, e in pairs)


def time_us(call: Callable[[], Any], quick: bool = False) -> tuple[float, float | None]:
    """Median time of one call and, on CUDA, of one call inside a CUDA graph; both after a warm-up."""
    call()
    if not torch.cuda.is_available() or not _on_cuda(call()):
        return _wall_us(call, repeats=3 if quick else 15), None
    for _ in range(3):
        call()
    repeats = 20 if quick else 200
    return _event_us(call, repeats), _graph_us(call, repeats)


def _on_cuda(result: Any) -> bool:
    first = result if isinstance(result, Tensor) else next(iter(result), None) if result is not None else None
    return first is None or first.is_cuda


def _wall_us(call: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def _event_us(call: Callable[[], Any], repeats: int) -> float:
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, end in marks:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in marks) * 1e3


def _graph_us(call: Callable[[], Any], repeats: int) -> float | None:
    """None where the call cannot be captured, as one that waits for the GPU."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for _ in range(CALLS_PER_GRAPH):
                call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    graph.replay()
    return _event_us(graph.replay, max(repeats // 10, 5)) / CALLS_PER_GRAPH


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown; ``x`` is how often the variant fits into the time of the case's first row."""
    lines = ["| case | variant | call us | graph us | x | GB/s | error |", "|---|---|---:|---:|---:|---:|---:|"]
    first: dict[str, Row] = {}
    for row in rows:
        base = first.setdefault(row.case, row)
        faster = (base.graph_us or base.call_us) / (row.graph_us or row.call_us)
        graph = "" if row.graph_us is None else f"{row.graph_us:.2f}"
        numbers = f"{row.call_us:.1f} | {graph} | {faster:.2f} | {row.gb_per_s:.0f} | {row.error:.1e}"
        lines.append(f"| {row.case} | {row.variant} | {numbers} |")
    return "\n".join(lines)

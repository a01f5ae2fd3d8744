"""``python -m benchmarks.attention``: which attention backends run here, and every one of them on the model's shapes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mmaudio_core.attention import sdpa
from mmaudio_core.attention.listing import BACKENDS, listing
from mmaudio_core.attention.listing import table as listed
from mmaudio_core.attention.measure import Shape, inputs

from .kernels.__main__ import DTYPES, machine
from .kernels.timing import Row, bytes_of, measure, table

SHAPES = {
    "flow S 16k": (Shape(2, 7, 391, 391), 64),
    "flow S 44k": (Shape(2, 7, 486, 486), 64),
    "flow M, L 44k": (Shape(2, 14, 486, 486), 64),
    "CLIP image, 8 frames": (Shape(8, 16, 730, 730), 80),
    "CLIP text": (Shape(2, 16, 77, 77), 64),
}
"""Of 8 s with both branches of guidance: latent, visual and text tokens together."""
CAUSAL = {"CLIP text"}
"""Only torch's attention takes a mask."""


def variants(device: torch.device, dtype: torch.dtype, head_dim: int, causal: bool) -> dict[str, Callable[..., Tensor]]:
    """The backends that can run, torch's own choice first."""
    found = {b.name: b.run for b in BACKENDS if b.reason(device, dtype, head_dim) is None}
    return {n: partial(run, causal=True) for n, run in found.items() if n.startswith("sdpa")} if causal else found


def run(device: str, dtype: torch.dtype, quick: bool = False) -> list[Row]:
    """A row for every backend on every shape; errors are against sdpa-math in float64."""
    where, rows = torch.device(device), []
    for name, (shape, head_dim) in SHAPES.items():
        shape = shape._replace(batch=1) if quick else shape
        causal = name in CAUSAL
        q, k, v = inputs(where, dtype, head_dim, shape)
        judge = partial(sdpa.attend_with, "math", causal=causal)
        moved = bytes_of(q, k, v, q)
        case = f"{name}: {shape} d={head_dim}{', causal' if causal else ''}"
        rows += measure(case, variants(where, dtype, head_dim, causal), (q, k, v), moved, quick, judge)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default=None, choices=tuple(DTYPES), help="default: bfloat16 on cuda, float32 on cpu")
    parser.add_argument("--quick", action="store_true", help="few repetitions of batch 1: whether it runs, not how fast")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; run with --device cpu")
    dtype = DTYPES[options.dtype or ("bfloat16" if options.device == "cuda" else "float32")]
    print(f"{machine(options.device)}; {str(dtype).removeprefix('torch.')}{'; quick' if options.quick else ''}")
    print(f"\n{listed(listing(torch.device(options.device), dtype, 64))}\n")
    print(table(run(options.device, dtype, options.quick)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

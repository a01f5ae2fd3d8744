"""Triton kernels under test: compiled where there is a CUDA device, elsewhere interpreted on the CPU.

Import this before a module of ``mmaudio_core.kernels.triton``: Triton decides at a kernel's definition which of both it is.
Importing it skips the importing test file where Triton is missing.
"""

from __future__ import annotations

import os
import sys

import pytest
import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TRUNCATES_BFLOAT16 = DEVICE == "cpu"
"""Triton's interpreter cuts float32 off to bfloat16 where a GPU rounds to the nearest."""

if DEVICE == "cpu":
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("Triton was imported before tests.kernels.interpreter; its own functions would not be interpreted.")
    os.environ["TRITON_INTERPRET"] = "1"
triton = pytest.importorskip("triton", reason="Triton is not installed here", exc_type=ImportError)


def expect_close(actual: Tensor, expected: Tensor, float32_steps: float = 16.0, truncated: bool = TRUNCATES_BFLOAT16) -> None:
    """``actual`` is the float64 ``expected`` rounded once to actual's dtype, up to errors of float32 arithmetic.

    Every element may be off by half a step of its own dtype (a whole one in bfloat16 if ``truncated``), plus
    ``float32_steps`` steps of float32 at the size of the largest expected element. NaN, as an unwritten element has in these
    tests, never passes.
    """
    assert expected.dtype == torch.float64, "the reference is computed in float64"
    assert actual.dtype in DTYPES
    step = torch.finfo(torch.float32).eps
    rounding = 0.0 if actual.dtype == torch.float32 else torch.finfo(actual.dtype).eps / 2
    if truncated and actual.dtype == torch.bfloat16:
        rounding *= 2
    largest = expected.abs().max().item() if expected.numel() else 0.0
    smallest_step = 1e-7 if rounding else 0.0  # of float16, whose small numbers are spaced evenly
    torch.testing.assert_close(
        actual.double().cpu(),
        expected.cpu(),
        rtol=rounding * 1.01 + step,
        atol=float32_steps * step * largest + smallest_step,
    )


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal numbers on ``DEVICE``, the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator)).to(DEVICE, dtype)

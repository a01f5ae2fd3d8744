"""BigVGAN's anti-aliased snake in CUDA C++; ``mmaudio_core.kernels.snake`` says what it computes."""

from __future__ import annotations

from ctypes import Structure, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from ...errors import InputError
from ..snake import check_snake
from . import runtime
from .checks import WARP, aligned, check_inference

BLOCK, WARPS = 128, 4
CHUNKS = (2, 3, 4, 5)
"""How far a thread may walk along time: over 6 * chunks - 5 outputs, in 6 * chunks steps."""
STAGED_ENDS = 16
"""Inputs before and after its outputs that a warp stages (LEFT and RIGHT of snake.cu)."""
MANY_THREADS = 1 << 17
"""About what fills a large GPU; with fewer, threads walk less far."""


class Arguments(Structure):
    """``SnakeArguments`` of snake.cu."""

    _fields_ = [
        ("x", c_void_p),
        ("x_batch", c_int64),
        ("x_channel", c_int64),
        ("x_time", c_int64),
        ("out", c_void_p),
        ("out_batch", c_int64),
        ("out_channel", c_int64),
        ("out_time", c_int64),
        ("alpha", c_void_p),
        ("inverse_beta", c_void_p),
        ("taps", c_void_p),
        ("batch", c_int64),
        ("channels", c_int64),
        ("length", c_int64),
        ("chunks", c_int),
    ]


def anti_aliased_snake(x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Tensor) -> Tensor:
    """The reference's result. For inference. alpha, inverse_beta, taps: float32.

    Raises:
        InputError: when the shapes do not fit, or the kernel does not take the dtypes, or gradients are wanted.
        MMAudioError: when the kernel cannot be built or started; ``available`` tells before.
    """
    check_snake(x, alpha, inverse_beta, taps)
    # A host may have left these small tensors on another device than the activations.
    alpha, inverse_beta, taps = (small.to(x.device).contiguous() for small in (alpha, inverse_beta, taps))
    check_inference("anti_aliased_snake", x, alpha, inverse_beta, taps)
    dtypes = {small.dtype for small in (alpha, inverse_beta, taps)}
    if dtypes != {torch.float32}:
        found = ", ".join(sorted(str(dtype) for dtype in dtypes))
        raise InputError(f"anti_aliased_snake was given alpha, inverse_beta and taps of {found}; give all three in float32.")
    out = torch.empty_like(x)
    if out.numel():
        runtime.launch(_plan(x, out, alpha, inverse_beta, taps), x.device)
    return out


def _plan(x: Tensor, out: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Tensor) -> runtime.Launch:
    batch, channels, length = x.shape
    element = x.element_size()
    along_time = length == 1 or (x.stride(2) == 1 and out.stride(2) == 1)
    if along_time:
        wide = aligned(x, out)
        chunks = min(CHUNKS, key=lambda count: -(-length // (WARP * _run(count))) * count)
        tile = WARP * _run(chunks)
        grid = -(-batch * channels * -(-length // tile) // WARPS)
        shared_bytes = WARPS * ((tile + STAGED_ENDS) * 4 + tile * element)
    else:
        wide = channels % 2 == 0 and _pairs(x) and _pairs(out)
        width = 2 if wide else 1
        many = batch * channels // width
        chunks = max((count for count in CHUNKS if many * -(-length // _run(count)) >= MANY_THREADS), default=CHUNKS[0])
        grid = -(-many * -(-length // _run(chunks)) // BLOCK)
        shared_bytes = 0
    arguments = Arguments(
        x.data_ptr(),
        *x.stride(),
        out.data_ptr(),
        *out.stride(),
        alpha.data_ptr(),
        inverse_beta.data_ptr(),
        taps.data_ptr(),
        batch,
        channels,
        length,
        chunks,
    )
    case = runtime.Case("snake", x.dtype, torch.float32, wide)
    return runtime.Launch(case, "snake_time" if along_time else "snake_channels", grid, BLOCK, shared_bytes, arguments)


def _run(chunks: int) -> int:
    """Outputs of one thread."""
    return 6 * chunks - 5


def _pairs(x: Tensor) -> bool:
    """Whether two neighbouring channels can be accessed as one."""
    return (
        x.stride(1) == 1
        and x.data_ptr() % (2 * x.element_size()) == 0
        and x.stride(2) % 2 == 0
        and (x.stride(0) % 2 == 0 or x.shape[0] == 1)
    )

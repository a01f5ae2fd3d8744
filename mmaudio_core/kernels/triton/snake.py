"""Anti-aliased SnakeBeta in one pass: every lane walks along a piece of one channel with the filters' state in registers."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...devices import on_device_of
from ..snake import check_snake
from .inference import check_inference

LANES = 128
PIECES = (64, 32, 16)
ENOUGH_LANES = 2**17
"""What a large GPU holds at once; a piece is walked with eight extra steps, so it is as long as leaves that many."""


@triton.jit
def pushed(value, d0, d1, d2, d3, d4, f0, f1, f2, f3, f4, f5):
    """A six-tap filter, newest tap first, in transposed form: its output and its five sums under way after one more value."""
    return f0 * value + d0, f1 * value + d1, f2 * value + d2, f3 * value + d3, f4 * value + d4, f5 * value


@triton.jit
def added(value, out, d0, d1, d2, d3, d4, f0, f1, f2, f3, f4, f5):
    """The same step for a second signal whose filtered values are added to the first's."""
    return out + f0 * value, d0 + f1 * value, d1 + f2 * value, d2 + f3 * value, d3 + f4 * value, d4 + f5 * value


@triton.jit
def every_second(taps):
    return tl.load(taps), tl.load(taps + 2), tl.load(taps + 4), tl.load(taps + 6), tl.load(taps + 8), tl.load(taps + 10)


@triton.jit
def snake_of(u, slope, height):
    wave = tl.sin(slope * u)
    return u + height * wave * wave


@triton.jit
def block_of(x_rows, at, live, samples, x_t, first, last):
    """x at the times ``at`` (lanes, steps) in float32, its ends repeated."""
    value = tl.load(x_rows[:, None] + at.to(tl.int64) * x_t, mask=live[:, None] & (at >= 0) & (at < samples), other=0.0)
    return tl.where(at < 0, first[:, None], tl.where(at >= samples, last[:, None], value.to(tl.float32)))


@triton.jit
def column_of(tile, step, i):
    """Where a lane has its whole row of ``tile`` in registers, as here, nothing is added up: the compiler takes the one."""
    return tl.sum(tl.where(step[None, :] == i, tile, 0.0), 1)


@triton.jit
def row_of(x_rows, at, live, samples, x_t):
    """x at the times ``at`` (lanes,) in float32, its ends repeated."""
    at = tl.minimum(tl.maximum(at, 0), samples - 1)
    return tl.load(x_rows + at.to(tl.int64) * x_t, mask=live, other=0.0).to(tl.float32)


@triton.jit
def filled(
    x_rows, start, live, samples, x_t, taps, first, last, TIME_MAJOR: tl.constexpr, LANES: tl.constexpr, STEPS: tl.constexpr
):
    """What both up filters have under way after the eight samples before ``start``, of which they need five."""
    f0, f2, f4, f6, f8, f10 = every_second(taps)
    f1, f3, f5, f7, f9, f11 = every_second(taps + 1)
    step = tl.arange(0, STEPS)
    e0 = tl.zeros((LANES,), tl.float32)
    e1, e2, e3, e4, o0, o1, o2, o3, o4 = e0, e0, e0, e0, e0, e0, e0, e0, e0
    for block in range(0, 8 // STEPS):
        before = start - 8 + block * STEPS
        if not TIME_MAJOR:
            tile = block_of(x_rows, before[:, None] + step[None, :], live, samples, x_t, first, last)
        for i in tl.static_range(STEPS):
            value = 2 * (row_of(x_rows, before + i, live, samples, x_t) if TIME_MAJOR else column_of(tile, step, i))
            _, e0, e1, e2, e3, e4 = pushed(value, e0, e1, e2, e3, e4, f1, f3, f5, f7, f9, f11)
            _, o0, o1, o2, o3, o4 = pushed(value, o0, o1, o2, o3, o4, f0, f2, f4, f6, f8, f10)
    return e0, e1, e2, e3, e4, o0, o1, o2, o3, o4


@triton.jit
def before_first(x_rows, first, live, samples, x_t, taps, slope, height):
    """The activation's first sample, which it also has before that."""
    f1, f3, f5, f7, f9, f11 = every_second(taps + 1)
    second = row_of(x_rows, tl.zeros_like(first).to(tl.int32) + 1, live, samples, x_t)
    third = row_of(x_rows, tl.zeros_like(first).to(tl.int32) + 2, live, samples, x_t)
    return snake_of(2 * (f1 * third + f3 * second + (f5 + f7 + f9 + f11) * first), slope, height)


@triton.jit
def snake_kernel(
    x, y, alpha, inverse_beta, taps, lanes, channels, samples, pieces, x_b, x_c, x_t, y_b, y_c, y_t,
    TIME_MAJOR: tl.constexpr, PIECE: tl.constexpr, LANES: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Neighbouring lanes are neighbouring channels in time-major memory; else pieces, each read ``STEPS`` samples at a time.

    At the step that reads x[p] the filters give u[2 (p - 2)] and u[2 (p - 3) + 1], and these complete y[p - 5]; it is
    written three steps later, so that reads and writes of a lane both begin at multiples of eight.
    """
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    live = lane < lanes
    channel = lane % channels if TIME_MAJOR else lane // pieces % channels
    piece = lane // channels % pieces if TIME_MAJOR else lane % pieces
    sample = lane // pieces // channels
    start = piece.to(tl.int32) * PIECE
    x_rows = x + sample * x_b + channel * x_c
    y_rows = y + sample * y_b + channel * y_c
    slope = tl.load(alpha + channel, mask=live, other=0.0).to(tl.float32)
    height = tl.load(inverse_beta + channel, mask=live, other=0.0).to(tl.float32)
    f0, f2, f4, f6, f8, f10 = every_second(taps)
    f1, f3, f5, f7, f9, f11 = every_second(taps + 1)
    step = tl.arange(0, STEPS)

    first = row_of(x_rows, tl.zeros_like(start), live, samples, x_t)
    last = row_of(x_rows, tl.zeros_like(start) + samples, live, samples, x_t)
    begun = before_first(x_rows, first, live, samples, x_t, taps, slope, height)
    e0, e1, e2, e3, e4, o0, o1, o2, o3, o4 = filled(
        x_rows, start, live, samples, x_t, taps, first, last, TIME_MAJOR, LANES, STEPS
    )
    z0 = tl.zeros((LANES,), tl.float32)
    z1, z2, z3, z4, done1, done2, done3, odd = z0, z0, z0, z0, z0, z0, z0, z0
    coming = row_of(x_rows, start, live, samples, x_t)
    for block in range(0, (PIECE + 8) // STEPS):
        now = start + block * STEPS
        if not TIME_MAJOR:
            tile = block_of(x_rows, now[:, None] + step[None, :], live, samples, x_t, first, last)
        out = tl.zeros((LANES, STEPS), tl.float32)
        for i in tl.static_range(STEPS):
            p = now + i
            value = 2 * (coming if TIME_MAJOR else column_of(tile, step, i))
            if TIME_MAJOR:
                coming = row_of(x_rows, p + 1, live, samples, x_t)  # under way while this step computes
            up_even, e0, e1, e2, e3, e4 = pushed(value, e0, e1, e2, e3, e4, f1, f3, f5, f7, f9, f11)
            up_odd, o0, o1, o2, o3, o4 = pushed(value, o0, o1, o2, o3, o4, f0, f2, f4, f6, f8, f10)
            # After its last sample, the odd one of the last pair, the activation repeats that.
            odd = tl.where(p - 3 >= samples, odd, tl.where(p < 3, begun, snake_of(up_odd, slope, height)))
            even = tl.where(p - 2 >= samples, odd, tl.where(p < 2, begun, snake_of(up_even, slope, height)))
            done, done1, done2 = done1, done2, done3
            done3, z0, z1, z2, z3, z4 = pushed(even, z0, z1, z2, z3, z4, f11, f9, f7, f5, f3, f1)
            done3, z0, z1, z2, z3, z4 = added(odd, done3, z0, z1, z2, z3, z4, f10, f8, f6, f4, f2, f0)
            if TIME_MAJOR:
                mask = live & (p - 8 >= start) & (p - 8 < samples)
                tl.store(y_rows + (p - 8).to(tl.int64) * y_t, done.to(y.dtype.element_ty), mask=mask)
            else:
                out = tl.where(step[None, :] == i, done[:, None], out)
        if not TIME_MAJOR:
            at = (now - 8)[:, None] + step[None, :]
            mask = live[:, None] & (at >= start[:, None]) & (at < samples)
            tl.store(y_rows[:, None] + at.to(tl.int64) * y_t, out.to(y.dtype.element_ty), mask=mask)


def anti_aliased_snake(x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Tensor) -> Tensor:
    """See ``kernels.snake.anti_aliased_snake``; ``alpha``, ``inverse_beta`` and ``taps`` are used in float32.

    Raises:
        InputError: as the reference, and when a gradient is wanted or a dtype is none of float16, bfloat16 and float32.
    """
    check_snake(x, alpha, inverse_beta, taps)
    check_inference("anti_aliased_snake", x=x, alpha=alpha, inverse_beta=inverse_beta, taps=taps)
    alpha, inverse_beta, taps = (t.float().contiguous() for t in (alpha, inverse_beta, taps))
    batch, channels, samples = x.shape
    y = torch.empty_like(x)
    if x.numel():
        rows = batch * channels
        piece = next((p for p in PIECES if rows * triton.cdiv(samples, p) >= ENOUGH_LANES), PIECES[-1])
        pieces = triton.cdiv(samples, piece)
        with on_device_of(x):
            snake_kernel[(triton.cdiv(rows * pieces, LANES),)](
                x, y, alpha, inverse_beta, taps, rows * pieces, channels, samples, pieces, *x.stride(), *y.stride(),
                TIME_MAJOR=x.stride(1) < x.stride(2), PIECE=piece, LANES=LANES, STEPS=16 // x.element_size(), num_warps=4,
            )  # fmt: skip
    return y

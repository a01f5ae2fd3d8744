"""Packed projection to normalised and rotated heads in one pass; needs a Triton with ``join`` and ``split`` (3.0)."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...devices import on_device_of
from ...errors import InputError
from ..heads import HEAD_DIM, RMS_EPS, check_packed, check_shared
from .tokens import MAX_TOKENS, check_dtypes, strides

TOKENS = 8
"""Tokens of one head for each program of two warps: eight channels for each thread, 16 bytes in half precision."""


@triton.jit
def load_pairs(x, token, mask, stride_l, stride_c):
    """Even and odd channels (tokens, 32) of one head of some tokens, in float32.

    Weights (a stride of 0 between tokens) and rotations (cosines are the even channels) are loaded so too: in one layout,
    nothing has to change places between threads.
    """
    channel = tl.arange(0, 64)
    at = x + token[:, None].to(tl.int64) * stride_l + channel[None, :].to(tl.int64) * stride_c
    tile = tl.load(at, mask=mask[:, None], other=0.0).to(tl.float32)
    return tl.split(tl.reshape(tile, (token.shape[0], 32, 2)))


@triton.jit
def store_pairs(x, even, odd, token, mask, stride_l, stride_c):
    """What ``load_pairs`` loads, rounded to the dtype of ``x``."""
    channel = tl.arange(0, 64)
    at = x + token[:, None].to(tl.int64) * stride_l + channel[None, :].to(tl.int64) * stride_c
    tile = tl.reshape(tl.join(even, odd), (token.shape[0], 64))
    tl.store(at, tile.to(x.dtype.element_ty), mask=mask[:, None])


@triton.jit
def inverse_rms(even, odd, EPS: tl.constexpr):
    """(tokens, 1)."""
    return tl.rsqrt(tl.sum(even * even + odd * odd, 1) / 64 + EPS)[:, None]


@triton.jit
def turn(packed, out, weight, rope, token, mask, packed_l, packed_c, out_l, EPS: tl.constexpr):
    """One head of queries or keys, from its place in ``packed`` to its place in ``out``."""
    even, odd = load_pairs(packed, token, mask, packed_l, packed_c)
    weight_even, weight_odd = load_pairs(weight, token, mask, 0, 1)
    inverse = inverse_rms(even, odd, EPS)
    even = even * inverse * weight_even
    odd = odd * inverse * weight_odd
    if rope is not None:
        cos, sin = load_pairs(rope, token, mask, 64, 1)
        turned = even * cos - odd * sin
        odd = even * sin + odd * cos
        even = turned
    store_pairs(out, even, odd, token, mask, out_l, 1)


@triton.jit
def turn_back(
    packed, grad, grad_packed, grad_weight, weight, rope, token, mask, packed_l, packed_c, grad_l, grad_c, grad_packed_l,
    grad_packed_c, EPS: tl.constexpr,
):  # fmt: skip
    """Gradient of ``turn``; ``grad_weight`` (64,) takes the sum over this program's tokens."""
    even, odd = load_pairs(packed, token, mask, packed_l, packed_c)
    grad_even, grad_odd = load_pairs(grad, token, mask, grad_l, grad_c)
    if rope is not None:
        cos, sin = load_pairs(rope, token, mask, 64, 1)
        turned = grad_even * cos + grad_odd * sin
        grad_odd = grad_odd * cos - grad_even * sin
        grad_even = turned
    inverse = inverse_rms(even, odd, EPS)
    even *= inverse
    odd *= inverse
    sums = tl.join(tl.sum(grad_even * even, 0), tl.sum(grad_odd * odd, 0))
    tl.store(grad_weight + tl.arange(0, 64), tl.reshape(sums, (64,)))
    weight_even, weight_odd = load_pairs(weight, token, mask, 0, 1)
    grad_even *= weight_even
    grad_odd *= weight_odd
    along = (tl.sum(grad_even * even + grad_odd * odd, 1) / 64)[:, None]
    grad_even = (grad_even - even * along) * inverse
    grad_odd = (grad_odd - odd * along) * inverse
    store_pairs(grad_packed, grad_even, grad_odd, token, mask, grad_packed_l, grad_packed_c)


@triton.jit
def place(length, HEADS: tl.constexpr, TOKENS: tl.constexpr):
    """This program's sample, head, tokens, and which of them there are. Neighbours have the heads of the same tokens."""
    program = tl.program_id(0)
    head = program % HEADS
    blocks = tl.cdiv(length, TOKENS)
    block = program // HEADS
    token = (block % blocks) * TOKENS + tl.arange(0, TOKENS)
    return (block // blocks).to(tl.int64), head.to(tl.int64), token, token < length


@triton.jit
def forward_kernel(
    packed, q_weight, k_weight, rope, q, k, v, length, packed_b, packed_l, packed_c,
    q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l,
    HEADS: tl.constexpr, PART: tl.constexpr, STEP: tl.constexpr, EPS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Channel c of part j is j * ``PART`` + c * ``STEP`` after the head's first one; without ``q`` keys are the first part."""
    sample, head, token, mask = place(length, HEADS, TOKENS)
    packed += sample * packed_b + head * (64 * STEP) * packed_c
    step = STEP * packed_c
    if q is not None:
        turn(packed, q + sample * q_b + head * q_h, q_weight, rope, token, mask, packed_l, step, q_l, EPS)
        packed += PART * packed_c
    turn(packed, k + sample * k_b + head * k_h, k_weight, rope, token, mask, packed_l, step, k_l, EPS)
    packed += PART * packed_c
    even, odd = load_pairs(packed, token, mask, packed_l, step)
    store_pairs(v + sample * v_b + head * v_h, even, odd, token, mask, v_l, 1)


@triton.jit
def backward_kernel(
    packed, q_weight, k_weight, rope, grad_q, grad_k, grad_v, grad_packed, grad_weights, length, packed_b, packed_l, packed_c,
    q_b, q_h, q_l, q_c, k_b, k_h, k_l, k_c, v_b, v_h, v_l, v_c, out_b, out_l,
    HEADS: tl.constexpr, PART: tl.constexpr, STEP: tl.constexpr, EPS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """``grad_packed`` is contiguous along its channels; ``grad_weights`` is (programs, 2, 64)."""
    sample, head, token, mask = place(length, HEADS, TOKENS)
    packed += sample * packed_b + head * (64 * STEP) * packed_c
    step = STEP * packed_c
    out = grad_packed + sample * out_b + head * (64 * STEP)
    sums = grad_weights + tl.program_id(0).to(tl.int64) * 128
    turn_back(
        packed, grad_q + sample * q_b + head * q_h, out, sums, q_weight, rope, token, mask, packed_l, step, q_l, q_c,
        out_l, STEP, EPS,
    )  # fmt: skip
    turn_back(
        packed + PART * packed_c, grad_k + sample * k_b + head * k_h, out + PART, sums + 64, k_weight, rope, token, mask,
        packed_l, step, k_l, k_c, out_l, STEP, EPS,
    )  # fmt: skip
    even, odd = load_pairs(grad_v + sample * v_b + head * v_h, token, mask, v_l, v_c)
    store_pairs(out + 2 * PART, even, odd, token, mask, out_l, STEP)


def _programs(packed: Tensor, heads: int) -> int:
    return packed.shape[0] * heads * triton.cdiv(packed.shape[1], TOKENS)


def _shape(heads: int, interleaved: bool) -> dict[str, int | float]:
    part, step = (1, 3) if interleaved else (heads * HEAD_DIM, 1)
    return {"HEADS": heads, "PART": part, "STEP": step, "EPS": RMS_EPS, "TOKENS": TOKENS, "num_warps": 2}


def _forward(
    packed: Tensor,
    heads: int,
    q_weight: Tensor | None,
    k_weight: Tensor,
    rope: Tensor | None,
    interleaved: bool,
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
) -> None:
    """Writes q, k and v (B, H, L, 64), last stride 1, of checked inputs."""
    if not packed.numel():
        return
    rope = None if rope is None else rope.contiguous()
    with on_device_of(packed):
        forward_kernel[(_programs(packed, heads),)](
            packed, None if q_weight is None else q_weight.contiguous(), k_weight.contiguous(), rope, q, k, v, packed.shape[1],
            *packed.stride(), *strides(q, 3), *strides(k, 3), *strides(v, 3), **_shape(heads, interleaved),
        )  # fmt: skip


def _new_heads(packed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (packed.shape[0], heads, packed.shape[1], HEAD_DIM)
    q, k, v = (torch.empty(shape, dtype=packed.dtype, device=packed.device) for _ in range(3))
    return q, k, v


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, packed: Tensor, heads: int, q_weight: Tensor, k_weight: Tensor, rope: Tensor | None, interleaved: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = _new_heads(packed, heads)
        _forward(packed, heads, q_weight, k_weight, rope, interleaved, q, k, v)
        ctx.save_for_backward(packed, q_weight, k_weight, rope)
        ctx.heads, ctx.interleaved = heads, interleaved
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor) -> tuple[Tensor | None, ...]:
        packed, q_weight, k_weight, rope = ctx.saved_tensors
        grad_packed = torch.empty(packed.shape, dtype=packed.dtype, device=packed.device)
        programs = _programs(packed, ctx.heads)
        sums = torch.empty((programs, 2, HEAD_DIM), dtype=torch.float32, device=packed.device)
        if programs:
            with on_device_of(packed):
                backward_kernel[(programs,)](
                    packed, q_weight.contiguous(), k_weight.contiguous(), None if rope is None else rope.contiguous(),
                    grad_q, grad_k, grad_v, grad_packed, sums, packed.shape[1], *packed.stride(),
                    *grad_q.stride(), *grad_k.stride(), *grad_v.stride(), *grad_packed.stride()[:2],
                    **_shape(ctx.heads, ctx.interleaved),
                )  # fmt: skip
        # Each program leaves its own sums, added here in one order: the result is the same every time.
        grad_q_weight, grad_k_weight = sums.sum(0)
        return grad_packed, None, grad_q_weight.to(q_weight.dtype), grad_k_weight.to(k_weight.dtype), None, None


def split_heads(
    packed: Tensor, heads: int, q_weight: Tensor, k_weight: Tensor, rope: Tensor | None, interleaved: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """``mmaudio_core.kernels.heads.split_heads`` for float16, bfloat16 and float32, with a backward pass of its own.

    Raises:
        InputError: as the reference, and for other dtypes and B * H * L above 2**30.
    """
    check_packed(packed, heads, 3, interleaved, q_weight, k_weight, rope)
    _check(packed, heads, q_weight=q_weight, k_weight=k_weight, rope=rope)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (packed, q_weight, k_weight)):
        return _SplitHeads.apply(packed, heads, q_weight, k_weight, rope, interleaved)
    q, k, v = _new_heads(packed, heads)
    _forward(packed, heads, q_weight, k_weight, rope, interleaved, q, k, v)
    return q, k, v


def split_heads_into(
    packed: Tensor,
    heads: int,
    q_weight: Tensor | None,
    k_weight: Tensor,
    rope: Tensor | None,
    interleaved: bool,
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    offset: int,
) -> None:
    """``mmaudio_core.kernels.heads.split_heads_into`` for float16, bfloat16 and float32; no gradient.

    Raises:
        InputError: as the reference, and for other dtypes and B * H * L above 2**30.
    """
    weight = None if q is None else q_weight
    check_packed(packed, heads, 2 if q is None else 3, interleaved, weight, k_weight, rope)
    check_shared(packed, heads, (k, v) if q is None else (q, k, v), offset)
    _check(packed, heads, q_weight=weight, k_weight=k_weight, rope=rope, q=q, k=k, v=v)
    tokens = packed.shape[1]
    queries = None if q is None else q.narrow(2, offset, tokens)
    keys, values = (x.narrow(2, offset, tokens) for x in (k, v))
    _forward(packed, heads, weight, k_weight, rope, interleaved, queries, keys, values)


def _check(packed: Tensor, heads: int, **others: Tensor | None) -> None:
    check_dtypes(packed=packed, **others)
    if packed.shape[0] * heads * packed.shape[1] > MAX_TOKENS:
        raise InputError(f"packed has shape {tuple(packed.shape)}; the Triton kernel takes B * H * L up to {MAX_TOKENS}.")

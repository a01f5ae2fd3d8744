"""From a packed projection to heads, in CUDA C++; ``mmaudio_core.kernels.heads`` says what it computes."""

from __future__ import annotations

from ctypes import Structure, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from ..heads import HEAD_DIM, check_packed, check_shared
from . import runtime
from .checks import VECTOR_BYTES, aligned, check_inference, table_dtype

BLOCK = 128


class Heads(Structure):
    """``Heads`` of heads.cu: address and strides of (B, H, N, 64), or null."""

    _fields_ = [("data", c_void_p), ("batch", c_int64), ("head", c_int64), ("token", c_int64)]


class Weight(Structure):
    """``Weight`` of heads.cu: address and stride of (64,), or null."""

    _fields_ = [("data", c_void_p), ("stride", c_int64)]


class Arguments(Structure):
    """``HeadsArguments`` of heads.cu."""

    _fields_ = [
        ("packed", c_void_p),
        ("packed_batch", c_int64),
        ("packed_token", c_int64),
        ("packed_channel", c_int64),
        ("q", Heads),
        ("k", Heads),
        ("v", Heads),
        ("q_weight", Weight),
        ("k_weight", Weight),
        ("rope", c_void_p),
        ("rope_token", c_int64),
        ("rope_pair", c_int64),
        ("rope_part", c_int64),
        ("tokens", c_int64),
        ("rows", c_int64),
        ("heads", c_int),
    ]


def split_heads(
    packed: Tensor, heads: int, q_weight: Tensor, k_weight: Tensor, rope: Tensor | None, interleaved: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The reference's results. For inference.

    q_weight, k_weight: both in the dtype of ``packed``, or both float32.

    Raises:
        InputError: when the shapes do not fit, or the kernel does not take the dtypes, or gradients are wanted.
        MMAudioError: when the kernel cannot be built or started; ``available`` tells before.
    """
    check_packed(packed, heads, 3, interleaved, q_weight, k_weight, rope)
    shape = (packed.shape[0], heads, packed.shape[1], HEAD_DIM)
    q, k, v = (torch.empty(shape, dtype=packed.dtype, device=packed.device) for _ in range(3))
    _split("split_heads", packed, heads, q_weight, k_weight, rope, interleaved, q, k, v, 0)
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
    """What the reference does. q_weight, k_weight: both in the dtype of ``packed``, or both float32.

    Raises:
        InputError: when the shapes or dtypes do not fit, or the kernel does not take them, or gradients are wanted.
        MMAudioError: when the kernel cannot be built or started; ``available`` tells before.
    """
    if q is None:
        q_weight = None
    check_packed(packed, heads, 2 if q is None else 3, interleaved, q_weight, k_weight, rope)
    check_shared(packed, heads, (k, v) if q is None else (q, k, v), offset)
    _split("split_heads_into", packed, heads, q_weight, k_weight, rope, interleaved, q, k, v, offset)


def _split(
    name: str,
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
    # A host may have left these small tensors on another device than the activations.
    q_weight = None if q_weight is None else q_weight.to(packed.device)
    k_weight = k_weight.to(packed.device)
    rope = None if rope is None else rope.to(packed.device)
    check_inference(name, packed, q_weight, k_weight, rope, q, k, v)
    dtype = table_dtype(name, packed, q_weight, k_weight)
    rows = packed.shape[0] * packed.shape[1] * heads
    if not rows:
        return
    # Both inner axes of the rotations are read as one.
    flat = rope is None or (rope.stride(1) == 2 and rope.stride(2) == 1)
    wide = flat and aligned(packed, q, k, v, q_weight, k_weight, rope)
    arguments = Arguments(
        packed.data_ptr(),
        *packed.stride(),
        _heads(q, offset),
        _heads(k, offset),
        _heads(v, offset),
        _weight(q_weight),
        _weight(k_weight),
        *((None, 0, 0, 0) if rope is None else (rope.data_ptr(), *rope.stride())),
        packed.shape[1],
        rows,
        heads,
    )
    lanes = HEAD_DIM * packed.element_size() // VECTOR_BYTES
    case = runtime.Case("heads", packed.dtype, dtype, wide)
    entry = "heads_interleaved" if interleaved else "heads_parts"
    runtime.launch(runtime.Launch(case, entry, -(-rows * lanes // BLOCK), BLOCK, 0, arguments), packed.device)


def _heads(x: Tensor | None, offset: int) -> Heads:
    """``x`` from token ``offset`` on; where all tokens start on 16 bytes, this one does."""
    if x is None:
        return Heads(None, 0, 0, 0)
    batch, head, token, _ = x.stride()
    return Heads(x.data_ptr() + offset * token * x.element_size(), batch, head, token)


def _weight(x: Tensor | None) -> Weight:
    return Weight(None, 0) if x is None else Weight(x.data_ptr(), x.stride(0))

"""From a packed projection to the heads of joint attention (arXiv 2412.15322, 3.3): the references.

Splitting, the RMS norm of queries and keys (arXiv 1910.07467) and the rotary positions (arXiv 2104.09864) in one function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..spec.model import HEAD_DIM
from .adaln import widened

RMS_EPS = torch.finfo(torch.float32).eps


def split_heads(
    packed: Tensor, heads: int, q_weight: Tensor, k_weight: Tensor, rope: Tensor | None, interleaved: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v of every head; q and k normalised over their 64 channels, scaled by the learned weights and rotated.

    packed: (B, L, 3 * H * 64). Head n, channel c and part j of (q, k, v) are at (n * 64 + c) * 3 + j if ``interleaved``, as
    published, else at j * H * 64 + n * 64 + c.
    q_weight, k_weight: (64,). rope: float32 (L, 32, 2), (cos, sin) for the channels (2i, 2i + 1); None: no rotation.
    Returns three tensors (B, H, L, 64), contiguous, in the dtype of ``packed``; computed in float32, or in float64 if it is
    that, rounded once.

    Raises:
        InputError: when the shapes do not fit.
    """
    check_packed(packed, heads, 3, interleaved, q_weight, k_weight, rope)
    q, k, v = _parts(packed, heads, 3, interleaved)
    return (
        _turned(q, q_weight, rope).to(packed.dtype).contiguous(),
        _turned(k, k_weight, rope).to(packed.dtype).contiguous(),
        v.contiguous(),
    )


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
    """``split_heads``, written into the tokens ``offset`` to ``offset + L`` of tensors that all streams share.

    q, k, v: (B, H, N, 64) in the dtype of ``packed``, any strides with last stride 1. With ``q`` None, ``packed`` is
    (B, L, 2 * H * 64), keys first, not interleaved, and ``q_weight`` is not used. No gradient.

    Raises:
        InputError: when the shapes or dtypes do not fit.
    """
    parts = 2 if q is None else 3
    check_packed(packed, heads, parts, interleaved, None if q is None else q_weight, k_weight, rope)
    check_shared(packed, heads, (k, v) if q is None else (q, k, v), offset)
    with torch.no_grad():
        *queries, keys, values = _parts(packed, heads, parts, interleaved)
        tokens = slice(offset, offset + packed.shape[1])
        if q is not None and q_weight is not None:
            q[:, :, tokens] = _turned(queries[0], q_weight, rope).to(q.dtype)
        k[:, :, tokens] = _turned(keys, k_weight, rope).to(k.dtype)
        v[:, :, tokens] = values


def _parts(packed: Tensor, heads: int, parts: int, interleaved: bool) -> tuple[Tensor, ...]:
    """(B, L, parts * H * 64) -> ``parts`` views (B, H, L, 64)."""
    if interleaved:
        return packed.unflatten(-1, (heads, HEAD_DIM, parts)).transpose(1, 2).unbind(-1)
    return packed.unflatten(-1, (parts, heads, HEAD_DIM)).permute(2, 0, 3, 1, 4).unbind(0)


def _turned(x: Tensor, weight: Tensor, rope: Tensor | None) -> Tensor:
    """(B, H, L, 64) normalised, scaled and rotated, not yet rounded."""
    wide = widened(x)
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    normed = wide * torch.rsqrt(norm.square() / HEAD_DIM + RMS_EPS) * weight.to(wide)
    if rope is None:
        return normed
    pairs, turns = normed.unflatten(-1, (-1, 2)), rope.to(wide)
    *outer, inner = pairs.stride()
    if wide.device.type == "cpu" and not torch.compiler.is_compiling() and inner == 1 and not any(s % 2 for s in outer):
        # One pass over the memory instead of seven; torch's compiler, which needs no such help, has no complex numbers.
        return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns)).flatten(-2)
    (even, odd), (cos, sin) = pairs.unbind(-1), turns.unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def check_packed(
    packed: Tensor,
    heads: int,
    parts: int,
    interleaved: bool,
    q_weight: Tensor | None,
    k_weight: Tensor,
    rope: Tensor | None,
) -> None:
    """Refuses what is no packed projection of ``parts`` parts.

    Raises:
        InputError: when ``packed`` is not (B, L, parts * H * 64), a weight is not (64,), ``rope`` is not float32 (L, 32, 2),
            or two parts are interleaved.
    """
    if packed.ndim != 3 or heads < 1 or packed.shape[2] != parts * heads * HEAD_DIM:
        raise InputError(
            f"packed has shape {tuple(packed.shape)}; (B, L, {parts * heads * HEAD_DIM}) was expected: {parts} parts of "
            f"{heads} heads of {HEAD_DIM} channels, the only head width there is."
        )
    if parts == 2 and interleaved:
        raise InputError("Keys and values without queries were said to be interleaved; give them part by part.")
    for name, weight in (("q_weight", q_weight), ("k_weight", k_weight)):
        if weight is None and (name == "k_weight" or parts == 3):
            raise InputError(f"{name} is missing; give the ({HEAD_DIM},) weight of the norm.")
        if weight is not None and weight.shape != (HEAD_DIM,):
            raise InputError(f"{name} has shape {tuple(weight.shape)}; ({HEAD_DIM},) was expected, a weight for each channel.")
    if rope is not None and (rope.dtype != torch.float32 or rope.shape != (packed.shape[1], HEAD_DIM // 2, 2)):
        raise InputError(
            f"rope is {rope.dtype} of shape {tuple(rope.shape)}; float32 of shape ({packed.shape[1]}, {HEAD_DIM // 2}, 2) "
            "was expected, a rotation for each token and channel pair."
        )


def check_shared(packed: Tensor, heads: int, shared: tuple[Tensor, ...], offset: int) -> None:
    """Refuses tensors that the heads of ``packed`` cannot be written into at ``offset``.

    Raises:
        InputError: when one is not (B, H, N, 64) with last stride 1 in the dtype of ``packed``, or the tokens do not fit in.
    """
    batch, tokens = packed.shape[:2]
    for x in shared:
        fits = x.ndim == 4 and x.shape[:2] == (batch, heads) and x.shape[3] == HEAD_DIM and x.stride(3) == 1
        if not fits or x.dtype != packed.dtype:
            raise InputError(
                f"A tensor to write into is {x.dtype} of shape {tuple(x.shape)} and strides {x.stride()}; {packed.dtype} of "
                f"shape ({batch}, {heads}, N, {HEAD_DIM}) with last stride 1 was expected."
            )
        if not 0 <= offset <= x.shape[2] - tokens:
            raise InputError(
                f"{tokens} tokens from {offset} on do not fit into {x.shape[2]}; allocate for the tokens of all streams."
            )

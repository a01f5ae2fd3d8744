"""Divided space-time attention that reads q, k and v where their projection wrote them."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...devices import on_device_of
from ...errors import InputError
from ..divided_attention import check_divided_attention
from .inference import check_inference

HEAD = 64
LOG2_SCALE = math.log2(math.e) / math.sqrt(HEAD)
"""Scores are for powers of two."""


@triton.jit
def token_at(index, members, patches, OVER_TIME: tl.constexpr):
    """The token of a member, counted group after group."""
    token = 1 + index % members * patches + index // members if OVER_TIME else 1 + index
    return token.to(tl.int64)


@triton.jit
def class_part(
    q_at, k_at, v_at, part, first, end, members, patches, stride_t, SCALE: tl.constexpr, OVER_TIME: tl.constexpr,
    HEAD: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """What the class token gets from the members first .. end: weighted values, largest score, sum of weights."""
    q = tl.load(q_at).to(tl.float32) * SCALE
    largest = tl.max(tl.zeros((HEAD,), tl.float32), 0) + float("-inf")
    total = tl.sum(tl.zeros((HEAD,), tl.float32), 0)
    mixed = tl.zeros((HEAD,), tl.float32)
    for at in range(first, end, KEYS):
        key = at + tl.arange(0, KEYS)
        place = token_at(key, members, patches, OVER_TIME)[:, None] * stride_t
        k = tl.load(k_at[None, :] + place, mask=(key < end)[:, None], other=0.0).to(tl.float32)
        v = tl.load(v_at[None, :] + place, mask=(key < end)[:, None], other=0.0).to(tl.float32)
        scores = tl.where(key < end, tl.sum(k * q[None, :], 1), float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 0))
        weights = tl.exp2(scores - larger)
        fading = tl.exp2(largest - larger)
        total = total * fading + tl.sum(weights, 0)
        mixed = mixed * fading + tl.sum(weights[:, None] * v, 0)
        largest = larger
    tl.store(part + tl.arange(0, HEAD), mixed)
    tl.store(part + HEAD, largest)
    tl.store(part + HEAD + 1, total)


@triton.jit
def groups_kernel(
    qkv, out, parts, heads, tokens, members, patches, pack, packs, tiles, stride_b, stride_t, stride_c, stride_part,
    SCALE: tl.constexpr, OVER_TIME: tl.constexpr, HEAD: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One program per head, tile of queries, and pack of ``pack`` members that are whole groups: several where these are small.

    The first tile of a pack also computes what the class token gets from the pack, for ``class_kernel``.
    """
    head = tl.program_id(0) % heads
    tile = tl.program_id(0) // heads % tiles
    part = tl.program_id(0) // heads // tiles % packs
    sample = (tl.program_id(0) // heads // tiles // packs).to(tl.int64)
    first = part * pack
    end = tl.minimum(first + pack, tokens - 1)
    column = tl.arange(0, HEAD).to(tl.int64)
    q_at = qkv + sample * stride_b + (head * HEAD + column) * stride_c
    k_at = q_at + stride_part
    v_at = k_at + stride_part

    query = first + tile * QUERIES + tl.arange(0, QUERIES)
    token = token_at(query, members, patches, OVER_TIME)
    q = tl.load(q_at[None, :] + token[:, None] * stride_t, mask=(query < end)[:, None], other=0.0)
    # The class token's key and value begin the running maximum, sum and mean.
    largest = tl.sum(q.to(tl.float32) * tl.load(k_at).to(tl.float32)[None, :], 1) * SCALE
    total = tl.full((QUERIES,), 1.0, tl.float32)
    mixed = tl.zeros((QUERIES, HEAD), tl.float32) + tl.load(v_at).to(tl.float32)[None, :]
    for at in range(first, end, KEYS):
        key = at + tl.arange(0, KEYS)
        place = token_at(key, members, patches, OVER_TIME)[:, None] * stride_t
        k = tl.load(k_at[None, :] + place, mask=(key < end)[:, None], other=0.0)
        v = tl.load(v_at[None, :] + place, mask=(key < end)[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), allow_tf32=False) * SCALE
        seen = (query // members)[:, None] == (key // members)[None, :]
        scores = tl.where(seen, scores, float("-inf"))  # keys from ``end`` on are of other groups
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - larger[:, None])
        fading = tl.exp2(largest - larger)
        total = total * fading + tl.sum(weights, 1)
        mixed = mixed * fading[:, None] + tl.dot(weights.to(v.dtype), v, allow_tf32=False)
        largest = larger
    to = out + (sample * tokens + token)[:, None] * (heads * HEAD) + (head * HEAD + column)[None, :]
    tl.store(to, (mixed / total[:, None]).to(out.dtype.element_ty), mask=(query < end)[:, None])

    if tile == 0:
        to_part = parts + ((sample * heads + head) * packs + part) * (HEAD + 2)
        class_part(q_at, k_at, v_at, to_part, first, end, members, patches, stride_t, SCALE, OVER_TIME, HEAD, KEYS)


@triton.jit
def class_kernel(
    qkv, out, parts, heads, tokens, packs, stride_b, stride_c, stride_part, SCALE: tl.constexpr, HEAD: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """One program per sample and head: joins the class token's parts, and its attention to itself."""
    head = tl.program_id(0) % heads
    sample = (tl.program_id(0) // heads).to(tl.int64)
    column = tl.arange(0, HEAD).to(tl.int64)
    q_at = qkv + sample * stride_b + (head * HEAD + column) * stride_c
    k_at = q_at + stride_part
    largest = tl.sum(tl.load(q_at).to(tl.float32) * tl.load(k_at).to(tl.float32), 0) * SCALE
    total = tl.sum(tl.zeros((HEAD,), tl.float32), 0) + 1.0
    mixed = tl.load(k_at + stride_part).to(tl.float32)
    for first in range(0, packs, PARTS):
        part = first + tl.arange(0, PARTS)
        at = parts + ((sample * heads + head) * packs + part) * (HEAD + 2)
        part_largest = tl.load(at + HEAD, mask=part < packs, other=float("-inf"))
        part_total = tl.load(at + HEAD + 1, mask=part < packs, other=0.0)
        part_mixed = tl.load(at[:, None] + column[None, :], mask=(part < packs)[:, None], other=0.0)
        larger = tl.maximum(largest, tl.max(part_largest, 0))
        weights = tl.exp2(part_largest - larger)
        fading = tl.exp2(largest - larger)
        total = total * fading + tl.sum(weights * part_total, 0)
        mixed = mixed * fading + tl.sum(weights[:, None] * part_mixed, 0)
        largest = larger
    tl.store(out + sample * tokens * heads * HEAD + head * HEAD + column, (mixed / total).to(out.dtype.element_ty))


def divided_attention(qkv: Tensor, heads: int, frames: int, over_time: bool) -> Tensor:
    """See ``kernels.divided_attention.divided_attention``; heads of 64 channels. Every k and v comes once from memory.

    Raises:
        InputError: as the reference, and when heads are not 64 wide, a gradient is wanted, or the dtype is none of float16,
            bfloat16 and float32.
    """
    check_divided_attention(qkv, heads, frames)
    check_inference("divided_attention", qkv=qkv)
    batch, tokens, packed = qkv.shape
    if packed != 3 * heads * HEAD:
        raise InputError(
            f"divided_attention was given {heads} heads of {packed // (3 * heads)} channels; the Triton kernel takes heads "
            f"of {HEAD}. Use the plain PyTorch one."
        )
    out = torch.empty((batch, tokens, heads * HEAD), dtype=qkv.dtype, device=qkv.device)
    if not batch:
        return out
    patches = (tokens - 1) // frames
    members = frames if over_time else patches
    if qkv.dtype == torch.float32:  # without tensor cores; larger tiles do not fit into the registers
        queries, keys, warps = 32, 32, 4
    else:
        queries, keys, warps = (64, 64, 4) if members <= 64 else (128, 64, 8)
    pack = max(queries // members, 1) * members
    packs, tiles = triton.cdiv(tokens - 1, pack), triton.cdiv(pack, queries)
    parts = torch.empty((batch, heads, packs, HEAD + 2), dtype=torch.float32, device=qkv.device)
    stride_b, stride_t, stride_c = qkv.stride()
    stride_part = heads * HEAD * stride_c
    with on_device_of(qkv):
        groups_kernel[(batch * packs * tiles * heads,)](
            qkv, out, parts, heads, tokens, members, patches, pack, packs, tiles, stride_b, stride_t, stride_c, stride_part,
            SCALE=LOG2_SCALE, OVER_TIME=over_time, HEAD=HEAD, QUERIES=queries, KEYS=keys, num_warps=warps, num_stages=2,
        )  # fmt: skip
        class_kernel[(batch * heads,)](
            qkv, out, parts, heads, tokens, packs, stride_b, stride_c, stride_part,
            SCALE=LOG2_SCALE, HEAD=HEAD, PARTS=32, num_warps=2,
        )  # fmt: skip
    return out

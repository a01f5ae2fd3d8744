"""Synchformer's visual tower with exact savings, on the weights of ``synchformer.py``'s module, which stays the reference.

Overlapping segments share their patch embedding, into which the normalisation of pixels is folded. The pool's class token is
the same for every input, so that its queries are constants, and keys, values and feed-forward of other tokens are not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import divided_attention as reference
from ..kernels import onednn
from ..kernels.sets import Kernels
from ..layers.float8 import keeps_float8
from ..spec.model import SynchformerSpec
from ..spec.timing import SYNC_SEGMENT_FRAMES, SYNC_SEGMENT_STRIDE
from . import divided
from .fast_layers import MLP, Linear, OneQuery, PatchWeights, wide
from .room import available_bytes, has_room
from .synchformer_blocks import ClassTokenPool, DividedAttention, DividedBlock

MEAN = STD = (0.5, 0.5, 0.5)
Divided = Callable[[Tensor, int, int, bool], Tensor]


class FastSynchformer:
    """Takes the parts of ``module``, a SynchformerVisual, not the module itself, so that it can be kept there.

    pack: copy the weights into the CPU's own layout; None leaves it to the device, the dtype and the free memory.
    """

    def __init__(self, module: Any, kernels: Kernels, pack: bool | None = None) -> None:
        spec: SynchformerSpec = module.spec
        self._frames = spec.temporal_tokens
        if pack is None:
            pack = _packs(module.blocks)
        # In the last block no one reads the class token's own result; only what is written here can leave it out.
        patches_only: Divided = kernels.divided_attention
        attend: Divided = kernels.divided_attention
        if module.cls_token.device.type == "cpu" and attend is reference.divided_attention:
            attend, patches_only = divided.divided_attention, _without_class
        self._blocks = [_Block(b, attend, kernels, pack) for b in module.blocks[:-1]]
        self._last = _Block(module.blocks[-1], attend, kernels, pack, patches_only)
        self._norm: nn.Module = module.norm
        self._pool = _Pool(module.spatial_attn_agg)
        self._source = (spec, module.patch_embed_3d.proj, module.pos_embed, module.temp_embed, module.cls_token)
        self._embeddings: dict[bool, _Embedding] = {}

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Frames (8 B + 8, 3, size, size) of B overlapping segments, on the module's device, uint8 or normalised -> (B, 8, D).

        On CUDA nothing waits for the device once each kind of frame was seen, so that it can be captured in a graph.
        """
        pixels = frames.dtype == torch.uint8
        if pixels not in self._embeddings:
            self._embeddings[pixels] = _Embedding(*self._source, pixels)
        x = self._embeddings[pixels](frames)
        for block in self._blocks:
            block(x, self._frames)
        x = self._norm(self._last.patches(x, self._frames)).unflatten(1, (self._frames, -1))
        return self._pool(x.flatten(0, 1)).unflatten(0, (-1, self._frames))


class _Embedding:
    """Tubelets with positions behind the class token: frames -> (B, 1 + frames * patches, D)."""

    def __init__(
        self, spec: SynchformerSpec, conv: nn.Conv3d, pos_embed: Tensor, temp_embed: Tensor, cls_token: Tensor, pixels: bool
    ) -> None:
        self._spec = spec
        self._tubelets = PatchWeights(conv.weight, conv.bias, pixels, MEAN, STD)
        dtype = wide(pos_embed)
        positions, times = pos_embed.detach()[0].to(dtype), temp_embed.detach()[0].to(dtype)
        table = positions[1:] + times[:, None] + self._tubelets.offset
        self._table = table.to(pos_embed.dtype)  # frames, patches, D
        self._class = (positions[0] + cls_token.detach()[0, 0].to(dtype)).to(pos_embed.dtype)

    def __call__(self, frames: Tensor) -> Tensor:
        spec, step = self._spec, self._spec.tubelet_frames
        if SYNC_SEGMENT_STRIDE % step:  # no tubelet belongs to two segments
            segments = frames.unfold(0, SYNC_SEGMENT_FRAMES, SYNC_SEGMENT_STRIDE).movedim(-1, 1)
            tokens = self._embed(segments[:, : spec.temporal_tokens * step].flatten(0, 1)).unflatten(
                0, (-1, spec.temporal_tokens)
            )
        else:
            tokens = self._embed(frames).unfold(0, spec.temporal_tokens, SYNC_SEGMENT_STRIDE // step).movedim(-1, 1)
        x = tokens.new_empty(tokens.shape[0], 1 + tokens.shape[1] * tokens.shape[2], tokens.shape[3])
        x[:, 0] = self._class
        torch.add(tokens, self._table, out=x[:, 1:].unflatten(1, tokens.shape[1:3]))
        return x

    def _embed(self, frames: Tensor) -> Tensor:
        """(tubelets * their frames, 3, size, size) -> (tubelets, patches, D)."""
        grid, patch, step = self._spec.grid, self._spec.patch, self._spec.tubelet_frames
        tubelets = frames.unflatten(3, (grid, patch)).unflatten(2, (grid, patch)).unflatten(0, (-1, step))
        rows = tubelets.permute(0, 3, 5, 2, 1, 4, 6)  # tubelets, grid, grid, 3, frames, patch, patch
        return self._tubelets(rows.reshape(rows.shape[0], grid * grid, -1))


class _Block:
    """One block, in place on x (B, 1 + frames * patches, D)."""

    def __init__(
        self, block: DividedBlock, attend: Divided, kernels: Kernels, pack: bool, patches_only: Divided | None = None
    ) -> None:
        self._block = block
        self._time = _Attention(block.timeattn, attend, pack)
        self._space = _Attention(block.attn, patches_only or attend, pack)
        self._mlp = MLP(block.mlp.fc1, block.mlp.fc2, False, kernels, pack)

    def __call__(self, x: Tensor, frames: int) -> None:
        x.add_(self._time(self._block.norm3(x), frames, over_time=True))
        x.add_(self._space(self._block.norm1(x), frames, over_time=False))
        x.add_(self._mlp(self._block.norm2(x)))

    def patches(self, x: Tensor, frames: int) -> Tensor:
        """The same without the class token's result: (B, frames * patches, D), not in place."""
        x.add_(self._time(self._block.norm3(x), frames, over_time=True))
        count = x.shape[1] - 1
        x = x[:, 1:] + self._space(self._block.norm1(x), frames, over_time=False)[:, -count:]
        return x.add_(self._mlp(self._block.norm2(x)))


class _Attention:
    def __init__(self, attention: DividedAttention, attend: Divided, pack: bool) -> None:
        self._heads, self._attend = attention.heads, attend
        self._qkv, self._out = Linear(attention.qkv, pack), Linear(attention.proj, pack)

    def __call__(self, x: Tensor, frames: int, over_time: bool) -> Tensor:
        return self._out(self._attend(self._qkv(x), self._heads, frames, over_time))


class _Pool:
    """The output of ``ClassTokenPool``: (B, patches, D) -> (B, D)."""

    def __init__(self, pool: ClassTokenPool) -> None:
        self._pool = pool
        self._attention = OneQuery(pool.self_attn, pool.self_attn.heads)
        self._mlp = nn.Sequential(pool.linear1, nn.GELU(), pool.linear2)
        token, norm, dtype = pool.cls_token.detach()[0], pool.norm1, wide(pool.cls_token)
        weight, bias = (t.detach().to(dtype) for t in (norm.weight, norm.bias))
        normed = nn.functional.layer_norm(token.to(dtype), norm.normalized_shape, weight, bias, norm.eps)
        self._queries = self._attention.queries(normed).to(token.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        pool = self._pool
        token = pool.cls_token.expand(x.shape[0], -1, -1)
        h = pool.norm1(torch.cat((token, x), dim=1))
        x = token[:, 0] + self._attention.attend(self._queries, h)
        out: Tensor = x + self._mlp(pool.norm2(x))
        return out


def _without_class(qkv: Tensor, heads: int, frames: int, over_time: bool) -> Tensor:
    return divided.divided_attention(qkv, heads, frames, over_time, class_token=False)


def _packs(blocks: Any) -> bool:
    weights = [p for block in blocks for p in block.parameters() if p.ndim == 2]
    if keeps_float8(blocks) or not weights or not onednn.packs(weights[0]):
        return False
    return has_room("Synchformer", sum(w.numel() * w.element_size() for w in weights), available_bytes())

"""CLIP's visual tower with exact savings, on the weights of open_clip's module, which stays the reference.

Pixels go through the patch embedding as they are: (x - mean) / std is folded into its weights, which is exact because nothing
is padded there. The last block answers for the class token alone. QuickGELU and attention are chosen from outside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..attention import sdpa
from ..attention.protocol import Attention
from ..kernels import onednn
from ..kernels.sets import Kernels
from ..layers.float8 import keeps_float8
from ..spec.model import CLIPSpec
from .fast_layers import MLP, Linear, OneQuery, PatchWeights, wide
from .room import available_bytes, has_room

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class FastCLIPImage:
    """``visual``: open_clip's VisionTransformer with learned positions and class-token pooling, as ``spec`` describes it.

    pack: copy the weights into the CPU's own layout; None leaves it to the device, the dtype and the free memory.
    """

    def __init__(
        self, visual: Any, spec: CLIPSpec, kernels: Kernels, attention: Attention = sdpa.attend, pack: bool | None = None
    ) -> None:
        self._visual, self._spec = visual, spec
        blocks = visual.transformer.resblocks
        heads = spec.vision_width // spec.vision_head_width
        if pack is None:
            pack = _packs(blocks)
        self._blocks = [_Block(b, heads, spec.quick_gelu, kernels, attention, pack) for b in blocks[:-1]]
        self._last = _LastBlock(blocks[-1], heads, spec.quick_gelu, kernels)
        self._embeddings: dict[bool, _Embedding] = {}

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Frames (V, 3, size, size) on the module's device, uint8 or normalised -> (V, embed_dim), as the module gives them.

        On CUDA nothing waits for the device once each kind of frame was seen, so that it can be captured in a graph.
        """
        pixels = frames.dtype == torch.uint8
        if pixels not in self._embeddings:
            self._embeddings[pixels] = _Embedding(self._visual, self._spec, pixels)
        x = self._visual.ln_pre(self._embeddings[pixels](frames))
        for block in self._blocks:
            block(x)
        features: Tensor = self._visual.ln_post(self._last(x)) @ self._visual.proj
        return features


class _Embedding:
    """Patches with positions behind the class token: (V, 3, size, size) -> (V, 1 + patches, D)."""

    def __init__(self, visual: Any, spec: CLIPSpec, pixels: bool) -> None:
        self._patch, self._grid = spec.patch, spec.image_size // spec.patch
        self._patches = PatchWeights(visual.conv1.weight, None, pixels, MEAN, STD)
        positions = visual.positional_embedding.detach()
        front = torch.cat((visual.class_embedding.detach()[None].to(wide(positions)), self._offsets(positions)))
        self._table = (positions.to(wide(positions)) + front).to(visual.conv1.weight.dtype)

    def _offsets(self, positions: Tensor) -> Tensor:
        return self._patches.offset.expand(positions.shape[0] - 1, -1)

    def __call__(self, frames: Tensor) -> Tensor:
        grid, patch = self._grid, self._patch
        used = frames[..., : grid * patch, : grid * patch]  # a convolution does not read what is left over either
        patches = used.unflatten(3, (grid, patch)).unflatten(2, (grid, patch)).permute(0, 2, 4, 1, 3, 5)
        tokens = self._patches(patches.reshape(frames.shape[0], grid * grid, -1))
        x = tokens.new_empty(frames.shape[0], *self._table.shape)
        x[:, 0] = self._table[0]
        torch.add(tokens, self._table[1:], out=x[:, 1:])
        return x


class _Block:
    """One residual block, in place on x (V, N, D)."""

    def __init__(self, block: Any, heads: int, quick: bool, kernels: Kernels, attention: Attention, pack: bool) -> None:
        self._block, self._heads, self._attention = block, heads, attention
        self._qkv = Linear(block.attn, pack, "in_proj_weight", "in_proj_bias")
        self._out = Linear(block.attn.out_proj, pack)
        self._mlp = MLP(block.mlp.c_fc, block.mlp.c_proj, quick, kernels, pack)

    def __call__(self, x: Tensor) -> None:
        packed = self._qkv(self._block.ln_1(x))
        q, k, v = packed.unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x.add_(self._out(self._attention(q, k, v)))
        del packed, q, k, v
        x.add_(self._mlp(self._block.ln_2(x)))


class _LastBlock:
    """The last block's class token: (V, N, D) -> (V, D)."""

    def __init__(self, block: Any, heads: int, quick: bool, kernels: Kernels) -> None:
        self._block = block
        self._attention = OneQuery(block.attn, heads)
        self._mlp = MLP(block.mlp.c_fc, block.mlp.c_proj, quick, kernels, pack=False)

    def __call__(self, x: Tensor) -> Tensor:
        h = self._block.ln_1(x)
        x = x[:, 0] + self._attention.attend(self._attention.queries(h[:, 0]), h)
        return x + self._mlp(self._block.ln_2(x))


def _packs(blocks: Any) -> bool:
    weights = [
        weight
        for block in blocks[:-1]
        for weight in (block.attn.in_proj_weight, block.attn.out_proj.weight, block.mlp.c_fc.weight, block.mlp.c_proj.weight)
    ]
    if keeps_float8(blocks) or not weights or not onednn.packs(weights[0]):
        return False
    return has_room("CLIP image", sum(w.numel() * w.element_size() for w in weights), available_bytes())

"""The flow network's guided velocity with what does not change between steps, rows and branches computed once.

Exact algebra on the network of ``model.py``, which stays the reference: both guidance branches in one batch, one audio
projection for both, frame-aligned modulations on the distinct sync rows only, modulations of the global condition for all steps
in one product, guidance before the last, linear convolution, no queries where nothing reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..attention.protocol import Attention
from ..kernels.adaln import widened
from ..kernels.dense import Conv, Tile
from ..kernels.sets import Kernels
from .blocks import FinalLayer, JointBlock, Rotations, StreamBlock
from .fast_layers import FastMLP, FastStream, Maker, modulation
from .model import FlowNetwork

PARTS = 6


class FastFlow:
    """The network's layers for the fast path. Built once per set of weights; see ``fast_flow``.

    The modulations of all blocks by the global condition are one table: clip and text of every joint block, then the final
    layer's. Those of the audio stream by frame-aligned conditions are one table on an accelerator and one per block on a CPU,
    where the one just made is still in the cache.
    """

    def __init__(self, net: FlowNetwork, kernels: Kernels, tile: Tile = 2) -> None:
        self.net, self.kernels = net, kernels
        make = Maker(kernels, tile)
        joint: Any = net.joint_blocks
        fused: Any = net.fused_blocks
        self.joint = [self._streams(block, make) for block in joint]
        self.audio = [FastStream(block, make) for block in fused]
        latent_blocks: list[StreamBlock] = [block.latent_block for block in joint] + list(fused)
        latent = [block.adaLN_modulation for block in latent_blocks]
        one_by_one = net.device.type == "cpu"
        self.latent_modulation = [modulation([m]) for m in latent] if one_by_one else [modulation(latent)]
        final: FinalLayer = net.final_layer
        rows = [m for block in joint for m in (block.clip_block.adaLN_modulation, block.text_block.adaLN_modulation)]
        self.global_modulation = modulation([*rows, final.adaLN_modulation])
        self.final_conv = Conv(final.conv.weight, final.conv.bias)
        first: Any = net.audio_input_proj
        self._audio_conv = Conv(first[0].weight, first[0].bias)
        self._audio_activation: nn.Module = first[1]
        self._audio_mlp = FastMLP(first[2], make)

    @staticmethod
    def _streams(block: JointBlock, make: Maker) -> tuple[FastStream, FastStream, FastStream]:
        return (
            FastStream(block.latent_block, make),
            FastStream(block.clip_block, make),
            FastStream(block.text_block, make),
        )

    def audio_input(self, latent: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, D)."""
        return self._audio_mlp(self._audio_activation(self._audio_conv(latent)))

    def evaluate(self, x: Tensor, given: StepInputs, heads: HeadBuffers, attend: Attention) -> Tensor:
        """The final layer's modulated input (G B, L, D), float32, for the projected latent x (G B, L, D)."""
        kernels, rows = self.kernels, given.rows
        activated = F.silu(given.frame_conditions)
        offset, total = 0, len(self.joint) + len(self.audio)
        shared = self.latent_modulation[0](activated).chunk(total, dim=-1) if len(self.latent_modulation) == 1 else None

        def table(block: int) -> Sequence[Tensor]:
            whole = shared[block] if shared is not None else self.latent_modulation[block](activated)
            return whole.chunk(PARTS, dim=-1)

        clip, text = given.clip, given.text
        now = table(0)
        h = kernels.adaln(x, now[0], now[1], rows)
        for i in range(total):
            if i < len(self.joint):
                offset, attended, clip, text = self._joint(i, h, (clip, text), given, offset, heads, attend)
                stream = self.joint[i][0]
            else:
                stream = self.audio[i - len(self.joint)]
                q, k, v = heads.audio
                stream.attend_into(h, given.rope.audio, q, k, v, 0)
                attended = attend(q, k, v)
            x, h = kernels.gated_add_adaln(x, stream.out(attended), now[2], now[3], now[4], rows)
            y, gate = stream.mlp(h), now[5]
            if i + 1 < total:
                now = table(i + 1)
                x, h = kernels.gated_add_adaln(x, y, gate, now[0], now[1], rows)
            else:
                x = kernels.gated_add(x, y, gate, rows)
        shift, scale = widened(given.global_table[:, offset:]).chunk(2, dim=-1)
        return kernels.adaln(widened(x), shift, scale)

    def _joint(
        self,
        i: int,
        h: Tensor,
        streams: tuple[Tensor, Tensor],
        given: StepInputs,
        offset: int,
        heads: HeadBuffers,
        attend: Attention,
    ) -> tuple[int, Tensor, Tensor, Tensor]:
        """Joint block ``i`` up to attention, and the rest of its visual and text streams.

        Returns the next offset in the global table, audio's attended tokens (G B, L, D), and the two streams.
        """
        latent, *others = self.joint[i]
        q, k, v = heads.joint
        last = others[0].keys_only
        if last:
            q = heads.audio[0]
        latent.attend_into(h, given.rope.audio, q, k, v, 0)
        tokens, width = h.shape[1], h.shape[2]
        count = 2 if last else PARTS
        modulations = []
        for stream, x, turn in zip(others, streams, (given.rope.visual, None), strict=True):
            parts = given.global_table[:, offset : offset + count * width].chunk(count, dim=-1)
            modulations.append(parts)
            stream.attend_into(self.kernels.adaln(x, parts[0], parts[1]), turn, q, k, v, tokens)
            offset, tokens = offset + count * width, tokens + x.shape[1]
        attended = attend(q, k, v)
        if last:
            return offset, attended, *streams
        audio, *rest = attended.split((h.shape[1], streams[0].shape[1], streams[1].shape[1]), dim=1)
        results = []
        for stream, x, seen, m in zip(others, streams, rest, modulations, strict=True):
            x, inner = self.kernels.gated_add_adaln(x, stream.out(seen.contiguous()), m[2], m[3], m[4])
            results.append(self.kernels.gated_add(x, stream.mlp(inner), m[5]))
        return offset, audio.contiguous(), results[0], results[1]


@dataclass(frozen=True)
class StepInputs:
    """What one evaluation needs beside the latent.

    rows: int32 (G B, L), the row of ``frame_conditions`` (R, D) of each latent token. global_table: (G B, sum of parts).
    clip: (G B, V, D), text: (G B, T, D).
    """

    rows: Tensor
    frame_conditions: Tensor
    global_table: Tensor
    clip: Tensor
    text: Tensor
    rope: Rotations


class HeadBuffers:
    """q, k, v of joint attention (batch, H, L + V + T, 64) and of audio-only attention (batch, H, L, 64), for all blocks."""

    def __init__(self, batch: int, heads: int, latent: int, others: int, like: Tensor) -> None:
        def three(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = (like.new_empty(batch, heads, tokens, 64) for _ in range(3))
            return q, k, v

        self.joint, self.audio = three(latent + others), three(latent)

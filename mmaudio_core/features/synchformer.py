"""Synchformer's visual tower (arXiv 2401.16423): 25 fps frames to 8 tokens per 16-frame segment."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..kernels.graphs import Graphed
from ..kernels.keep import Keep, Keeping, stamp
from ..kernels.sets import Kernels, torch_kernels
from ..spec.model import SynchformerSpec
from ..spec.timing import SYNC_SEGMENT_FRAMES, SYNC_SEGMENT_STRIDE, sync_segments
from .fast_synchformer import FastSynchformer
from .synchformer_blocks import VISUAL_EPS, ClassTokenPool, DividedBlock

SEGMENTS_PER_CHUNK = 4


class TubeletEmbedding(nn.Module):
    """2 x 16 x 16 pixels to one token, by a 3-D convolution under its published name."""

    def __init__(self, spec: SynchformerSpec) -> None:
        super().__init__()
        size = (spec.tubelet_frames, spec.patch, spec.patch)
        self.proj = nn.Conv3d(3, spec.width, size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class SynchformerVisual(Keeping):
    """Parameters carry the published names without ``vfeat_extractor.``.

    ``kernels`` are what the fast path computes with, and ``graphs`` whether it is replayed as a CUDA graph.
    """

    def __init__(self, spec: SynchformerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.kernels: Kernels = torch_kernels()
        self.graphs = False
        self._fast, self._graphed = Keep(), Keep()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, spec.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + spec.grid**2, spec.width))
        self.temp_embed = nn.Parameter(torch.zeros(1, spec.temporal_tokens, spec.width))
        self.patch_embed_3d = TubeletEmbedding(spec)
        self.blocks = nn.ModuleList(DividedBlock(spec.width, spec.heads, spec.mlp_width) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.width, eps=VISUAL_EPS)
        self.spatial_attn_agg = ClassTokenPool(spec.width, spec.heads, spec.mlp_width)

    def forward(self, segments: Tensor) -> Tensor:
        """Segments (B, 3, 16, 224, 224), pixels as (x - 0.5) / 0.5 -> (B, 8, D)."""
        tokens = self.patch_embed_3d(segments.to(self.cls_token.dtype)).flatten(3).permute(0, 2, 3, 1)  # B, frames, patches, D
        frames = tokens.shape[1]
        tokens = tokens + self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
        x = torch.cat((class_token, tokens.flatten(1, 2)), dim=1)
        for block in self.blocks:
            x = block(x, frames)
        x = self.norm(x[:, 1:]).unflatten(1, (frames, -1))
        return self.spatial_attn_agg(x.flatten(0, 1)).unflatten(0, (-1, frames))

    def fast(self) -> FastSynchformer:
        """The fast path, made anew when weights or ``kernels`` changed."""
        return self._fast.get((stamp(self), self.kernels), lambda: FastSynchformer(self, self.kernels))

    def _tower(self) -> Callable[[Tensor], Tensor]:
        fast = self.fast()
        return self._graphed.get(fast, lambda: Graphed(fast)) if self.graphs else fast

    @torch.no_grad()
    def encode(
        self,
        frames: Tensor,
        segments_per_chunk: int = SEGMENTS_PER_CHUNK,
        progress: Callable[[int, int], None] | None = None,
        plain: bool = False,
    ) -> Tensor:
        """Frames (T, 3, 224, 224) at 25 fps -> (1, S, D), S = 8 per segment; a last partial segment is dropped.

        Frames are uint8 pixels, or floats already normalised as (x - 0.5) / 0.5. ``progress`` gets (segments done, in all).
        ``plain``: segment by segment through ``forward``, as a reference.

        Raises:
            InputError: for fewer than 16 frames or another frame size.
        """
        size = self.spec.image_size
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, size, size) or frames.shape[0] < SYNC_SEGMENT_FRAMES:
            raise InputError(
                f"Frames of shape {tuple(frames.shape)} were given to Synchformer; it needs at least {SYNC_SEGMENT_FRAMES} "
                f"frames of (3, {size}, {size}), that is 0.64 s at 25 fps."
            )
        count = sync_segments(frames.shape[0])
        features = []
        tower = self if plain else self._tower()
        for first in range(0, count, segments_per_chunk):
            last = min(first + segments_per_chunk, count)
            if plain:
                starts = range(first * SYNC_SEGMENT_STRIDE, last * SYNC_SEGMENT_STRIDE, SYNC_SEGMENT_STRIDE)
                chunk = torch.stack([self._pixels(frames[s : s + SYNC_SEGMENT_FRAMES]).transpose(0, 1) for s in starts])
                features.append(tower(chunk))
            else:
                end = (last - 1) * SYNC_SEGMENT_STRIDE + SYNC_SEGMENT_FRAMES
                features.append(tower(frames[first * SYNC_SEGMENT_STRIDE : end].to(self.cls_token.device)))
            if progress:
                progress(last, count)
        return torch.cat(features).flatten(0, 1)[None]

    def _pixels(self, frames: Tensor) -> Tensor:
        frames = frames.to(self.cls_token.device)
        if frames.dtype == torch.uint8:
            frames = (frames.float() / 255 - 0.5) / 0.5
        return frames.to(self.cls_token.dtype)

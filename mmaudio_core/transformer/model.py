"""The flow network: velocity of the latent at time t under video, sync and text (arXiv 2412.15322, section 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..attention.protocol import Attention
from ..attention.sdpa import attend
from ..errors import InputError
from ..layers.conv import channel_last_conv
from ..layers.mlp import GatedConvMLP, GatedMLP
from ..layers.operations import TORCH, Operations
from ..layers.rope import rope_table
from ..layers.timestep import TimestepEmbedder
from ..spec.model import HEAD_DIM, FlowSpec
from ..spec.timing import SYNC_TOKENS_PER_SEGMENT, SequenceLengths, SyncTiming, sequence_lengths, steady_pace
from ..types import Features
from .blocks import FinalLayer, JointBlock, Rotations, StreamBlock
from .conditions import Conditions, sync_index, upsampling_index
from .fast_cache import FastCache


def _linear_projection(width_in: int, width: int, mlp: nn.Module, v2: bool, ops: Operations) -> nn.Sequential:
    first = ops.Linear(width_in, width)
    return nn.Sequential(first, nn.SiLU(), mlp) if v2 else nn.Sequential(first, mlp)


def rotations(latent_tokens: int, clip_tokens: int, device: torch.device | None = None, rope: str = "aligned") -> Rotations:
    """RoPE tables, float32. "aligned": a visual token turns as far as the audio token of the same instant; "plain": as far as
    the audio token of the same number; "none": nothing turns."""
    audio, visual = {"aligned": (1.0, latent_tokens / clip_tokens), "plain": (1.0, 1.0), "none": (0.0, 0.0)}[rope]
    return Rotations(
        rope_table(latent_tokens, HEAD_DIM, audio, device=device), rope_table(clip_tokens, HEAD_DIM, visual, device=device)
    )


class FlowNetwork(nn.Module):
    """(latent, t, conditions) -> velocity; t = 0 is noise and t = 1 is data.

    Parameters and buffers carry the published names. ``latent_mean`` and ``latent_std`` (1, 1, C) are the statistics that
    the network's latents were normalised with; the ``empty_*`` entries stand for missing inputs. ``operations`` makes the
    layers that hold weights.
    """

    def __init__(self, spec: FlowSpec, operations: Operations = TORCH) -> None:
        super().__init__()
        self.spec = spec
        width, ops = spec.width, operations

        def activation() -> nn.Module:
            return nn.SiLU() if spec.v2 else nn.SELU()

        self.audio_input_proj = nn.Sequential(
            channel_last_conv(spec.latent_dim, width, 7, operations=ops), activation(), GatedConvMLP(width, 7, ops)
        )
        self.clip_input_proj = _linear_projection(spec.clip_dim, width, GatedConvMLP(width, 3, ops), spec.v2, ops)
        self.sync_input_proj = nn.Sequential(
            channel_last_conv(spec.sync_dim, width, 7, operations=ops), activation(), GatedConvMLP(width, 3, ops)
        )
        self.text_input_proj = _linear_projection(spec.text_dim, width, GatedMLP(width, ops), spec.v2, ops)
        self.clip_cond_proj = ops.Linear(width, width)
        self.text_cond_proj = ops.Linear(width, width)
        self.global_cond_mlp = GatedMLP(width, ops)
        self.sync_pos_emb = nn.Parameter(torch.zeros(1, 1, SYNC_TOKENS_PER_SEGMENT, spec.sync_dim))

        kernel = 3 if spec.mlp == "conv" else 1
        self.t_embed = TimestepEmbedder(width, spec.v2, ops)
        self.joint_blocks = nn.ModuleList(
            JointBlock(width, spec.heads, i == spec.joint_blocks - 1, kernel, ops) for i in range(spec.joint_blocks)
        )
        self.fused_blocks = nn.ModuleList(
            StreamBlock(width, spec.heads, kernel, operations=ops) for _ in range(spec.audio_blocks)
        )
        self.final_layer = FinalLayer(width, spec.latent_dim, ops)

        # Statistics and the empty string's feature are data, not trained: parameters all the same, as published, so that
        # state dictionaries keep their names; the empty visual tokens are learned.
        self.latent_mean = nn.Parameter(torch.zeros(1, 1, spec.latent_dim), requires_grad=False)
        self.latent_std = nn.Parameter(torch.ones(1, 1, spec.latent_dim), requires_grad=False)
        self.empty_string_feat = nn.Parameter(torch.zeros(spec.text_tokens, spec.text_dim), requires_grad=False)
        self.empty_clip_feat = nn.Parameter(torch.zeros(1, spec.clip_dim))
        self.empty_sync_feat = nn.Parameter(torch.zeros(1, spec.sync_dim))
        self.fast_cache = FastCache()

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.fast_cache.clear()  # it would hold on to the memory that the weights leave
        return super()._apply(*args, **kwargs)

    @property
    def dtype(self) -> torch.dtype:
        return self.final_layer.conv.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.final_layer.conv.weight.device

    def normalize(self, latents: Tensor) -> Tensor:
        """VAE latents (B, L, C) -> the network's latents, (z - mean) / std."""
        return (latents - self.latent_mean.to(latents)) / self.latent_std.to(latents)

    def unnormalize(self, latents: Tensor) -> Tensor:
        """The network's latents (B, L, C) -> VAE latents."""
        return latents * self.latent_std.to(latents) + self.latent_mean.to(latents)

    def lengths(self, duration_s: float, sync_timing: SyncTiming | None = None) -> SequenceLengths:
        """L, V and S of ``duration_s``; ``sync_timing`` None is the network's own.

        Raises:
            InputError: for a duration below 0.64 s or not finite.
        """
        return sequence_lengths(duration_s, self.spec.audio, sync_timing or self.spec.sync_timing)

    def conditions(self, features: Features, lengths: SequenceLengths, batch: int | None = None) -> Conditions:
        """Project ``features`` for ``lengths`` (L, V, S); each missing input takes its learned empty tokens.

        A feature of batch 1 serves every sample. ``batch`` is needed only where it does not follow from the features.

        Raises:
            InputError: when a feature's width, length or batch does not fit the network or ``lengths``.
        """
        given = [f.shape[0] for f in (features.clip, features.sync, features.text) if f is not None]
        batch = batch or max(given, default=1)
        spec = self.spec
        clip = self._filled("clip", features.clip, self.empty_clip_feat, batch, lengths.clip, spec.clip_dim)
        sync = self._filled("sync", features.sync, self.empty_sync_feat, batch, lengths.sync, spec.sync_dim)
        text = self._filled("text", features.text, self.empty_string_feat, batch, spec.text_tokens, spec.text_dim)
        return self.project(clip, sync, text, lengths.latent, features.sync is None, lengths.sync_timing)

    def _filled(self, name: str, feature: Tensor | None, empty: Tensor, batch: int, tokens: int, width: int) -> Tensor:
        if feature is None:
            feature = empty[None].to(self.device, self.dtype)  # one row for visual inputs, all T for text
            return feature.expand(batch, tokens, width)
        if feature.ndim != 3 or feature.shape[1:] != (tokens, width) or feature.shape[0] not in (1, batch):
            raise InputError(
                f"The {name} features have shape {tuple(feature.shape)}; this network and duration need "
                f"({batch}, {tokens}, {width}). Extract them for the same duration with encoders that fit the model."
            )
        return feature.to(self.device, self.dtype).expand(batch, -1, -1)

    def project(
        self,
        clip: Tensor,
        sync: Tensor,
        text: Tensor,
        latent_tokens: int,
        sync_is_empty: bool = False,
        sync_timing: SyncTiming = "stretched",
    ) -> Conditions:
        """Features (B, V, clip width), (B, S, sync width), (B, T, text width) -> ``Conditions`` of L latent tokens.

        sync_is_empty: whether the sync tokens stand for a missing input. sync_timing: how S tokens are laid over L.
        """
        sync = (sync.unflatten(1, (-1, SYNC_TOKENS_PER_SEGMENT)) + self.sync_pos_emb.to(sync)).flatten(1, 2)
        clip = self.clip_input_proj(clip)
        sync = self.sync_input_proj(sync)
        if self.spec.sync == "visual":
            clip = clip.index_select(1, upsampling_index(clip.shape[1], sync.shape[1]).to(clip.device)) + sync
        if self.spec.sync != "frames":
            sync = 0 * sync  # a part of the graph all the same, so that all ranks agree on what has gradients
        text = self.text_input_proj(text)
        pace = steady_pace(self.spec.audio) if sync_timing == "steady" else None
        index = sync_index(sync.shape[1], latent_tokens, pace)
        return Conditions(
            clip=clip,
            clip_pooled=self.clip_cond_proj(clip.mean(dim=1)),
            sync_rows=sync,
            sync_index=index,
            text=text,
            text_pooled=self.text_cond_proj(text.mean(dim=1)),
            sync_is_empty=sync_is_empty,
        )

    def forward(self, latent: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """Velocity (B, L, C) of normalised ``latent`` (B, L, C) at time ``t`` (B,) or scalar, in the latent's dtype."""
        return self.velocity(latent, t, conditions)

    def velocity(self, latent: Tensor, t: Tensor, conditions: Conditions, attend: Attention = attend) -> Tensor:
        """What ``forward`` computes; samplers call it by this name, since a host's subclass has a ``forward`` of its own."""
        clip, text = conditions.clip, conditions.text
        t = t.to(latent.device)
        x = self.audio_input_proj(latent.to(clip.dtype))
        rope = rotations(x.shape[1], clip.shape[1], x.device, self.spec.rope)

        c = self.t_embed(t.expand(x.shape[0]), clip.dtype) + self.global_cond_mlp(
            conditions.clip_pooled + conditions.text_pooled
        )
        c = c[:, None]
        c_frames = c + conditions.sync

        for block in self.joint_blocks:
            x, clip, text = block(x, clip, text, c, c_frames, rope, attend)
        for block in self.fused_blocks:
            x = block(x, c_frames, rope.audio, attend)
        return self.final_layer(x, c).to(latent.dtype)

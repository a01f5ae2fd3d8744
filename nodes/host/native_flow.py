"""The flow network in the shape in which ComfyUI calls a diffusion model."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from ...mmaudio_core.attention.protocol import Attention
from ...mmaudio_core.layers.operations import TORCH, Operations
from ...mmaudio_core.spec.model import FlowSpec
from ...mmaudio_core.spec.timing import SyncTiming
from ...mmaudio_core.transformer.model import FlowNetwork
from .attention import host_attention, model_attention


class NativeFlow(FlowNetwork):
    """``forward`` takes ComfyUI's arguments and gives its sign; parameters keep the published names.

    ``compute_dtype`` and ``compute_device`` are what activations have; the host may keep weights in other places and formats.
    """

    def __init__(
        self, spec: FlowSpec, compute_dtype: torch.dtype, compute_device: torch.device, operations: Operations = TORCH
    ) -> None:
        super().__init__(spec, operations)
        self.compute_dtype, self.compute_device = compute_dtype, compute_device
        self._attention: Attention | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.compute_dtype

    @property
    def device(self) -> torch.device:
        return self.compute_device

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: Any = None,
        mmaudio_clip: Tensor | None = None,
        mmaudio_sync: Tensor | None = None,
        mmaudio_sync_timing: SyncTiming = "stretched",
        **_: Any,
    ) -> Tensor:
        """Latents x (B, C, L) at time t -> minus the velocity (B, C, L), ComfyUI's direction for sigma = 1 - t.

        context: text features (B, T, width); mmaudio_clip (B, V, width); mmaudio_sync (B, S, width).

        Raises:
            ValueError: when the conditioning is of another model.
        """
        spec = self.spec
        wanted = ((spec.text_tokens, spec.text_dim), (-1, spec.clip_dim), (-1, spec.sync_dim))
        for value, (tokens, width) in zip((context, mmaudio_clip, mmaudio_sync), wanted, strict=True):
            if value is None or value.shape[2] != width or (tokens > 0 and value.shape[1] != tokens):
                # ComfyUI calls this; the core's own classes show the pack's path in its messages.
                raise ValueError(foreign_conditioning(None if value is None else tuple(value.shape)))
        clip, sync, text = cast(Tensor, mmaudio_clip), cast(Tensor, mmaudio_sync), cast(Tensor, context)
        conditions = self.project(clip, sync, text, x.shape[2], sync_timing=mmaudio_sync_timing)
        attend = model_attention(transformer_options) or self.attention
        return -self.velocity(x.transpose(1, 2), timesteps, conditions, attend).transpose(1, 2)

    @property
    def attention(self) -> Attention:
        """Attention as the host's user chose it."""
        if self._attention is None:
            self._attention = host_attention()
        return self._attention


def foreign_conditioning(shape: tuple[int, ...] | None) -> str:
    """The sentence for a conditioning that some other node made."""
    what = "has no features of MMAudio" if shape is None else f"has features of shape {shape}"
    return (
        f"The conditioning {what}, and this MMAudio model cannot take it; connect the positive and negative outputs of "
        "'MMAudio: Encode Prompt' directly (no other text encoder, no ConditioningConcat)."
    )

"""How much memory the flow network's work takes, so that the host makes room before it starts."""

from __future__ import annotations

import torch

from ...mmaudio_core.spec.model import FlowSpec
from ...mmaudio_core.spec.timing import CLIP_FPS, SYNC_FPS

COPIES = 24
"""Tensors of (tokens, width) that are alive at once in the widest place of a block, found by tests/nodes/test_memory.py."""


def activation_bytes(spec: FlowSpec, batch: int, latent_tokens: int, dtype: torch.dtype) -> float:
    """Bytes that one evaluation of the network takes beside its weights, an upper bound."""
    seconds = latent_tokens / spec.audio.latent_rate_hz
    tokens = latent_tokens + (CLIP_FPS + SYNC_FPS) * seconds + spec.text_tokens
    return batch * tokens * spec.width * COPIES * torch.empty((), dtype=dtype).element_size()

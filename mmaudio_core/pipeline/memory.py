"""How much memory each network's work takes beside its weights, so that room can be made before it starts.

Upper bounds in bytes, found by counting what is alive at once (tests/core/test_memory_estimates.py). Attention is counted as
where no fused kernel runs, with the whole score matrix in memory.
"""

from __future__ import annotations

import torch

from ..autoencoder.fast import CONTEXT_LATENTS, LATENTS_PER_CHUNK
from ..autoencoder.vae import MULTIPLIERS
from ..spec.audio import LATENT_STRIDE
from ..spec.model import CLIPSpec, FlowSpec, SynchformerSpec, VAESpec, VocoderSpec
from ..spec.timing import CLIP_FPS
from ..vocoder.chunked import FRAMES_PER_CHUNK, context_frames

SCORES = 4.2
"""Score matrices alive at once: scaled queries and keys, scores, softmax, product."""
FLOW_COPIES, CLIP_COPIES, TEXT_COPIES, SYNC_COPIES, VAE_COPIES = 27, 17, 24, 34, 72
"""Tensors of (tokens, width) alive at once in the widest place of each network."""
VAE_PIECE_COPIES, VAE_DERIVED = 84, 48
"""In a piece of the decoder, and its rearranged weights as multiples of width squared."""
WIDEST = MULTIPLIERS[-1]
VOCODER_BYTES_PER_SAMPLE_AND_CHANNEL = 0.75
"""Of a first layer of that many channels; the activation runs in float32 at twice the rate in every number format."""


def _size(dtype: torch.dtype) -> int:
    return torch.empty((), dtype=dtype).element_size()


def flow_bytes(spec: FlowSpec, batch: int, latent_tokens: int, dtype: torch.dtype, fused: bool = False) -> int:
    """One evaluation of the flow network for ``batch`` samples of L tokens; ``fused``: attention makes no score matrix."""
    tokens = latent_tokens * (1 + CLIP_FPS / spec.audio.latent_rate_hz) + spec.text_tokens
    # The projections of both guidance branches stay alive during every step.
    elements = tokens * spec.width * FLOW_COPIES + (0 if fused else SCORES * spec.heads * tokens**2)
    return int(batch * elements * _size(dtype))


def clip_image_bytes(spec: CLIPSpec, frames: int, dtype: torch.dtype) -> int:
    """CLIP's visual tower on ``frames`` at once."""
    tokens, heads = (spec.image_size // spec.patch) ** 2 + 1, spec.vision_width // spec.vision_head_width
    elements = tokens * spec.vision_width * CLIP_COPIES + SCORES * heads * tokens**2
    pixels = 3 * spec.image_size**2 * 12
    return int(frames * (elements * _size(dtype) + pixels))


def clip_text_bytes(spec: CLIPSpec, texts: int, dtype: torch.dtype) -> int:
    """CLIP's text tower on ``texts`` at once."""
    tokens = spec.context_length
    return int(texts * (tokens * spec.text_width * TEXT_COPIES + SCORES * spec.text_heads * tokens**2) * _size(dtype))


def synchformer_bytes(spec: SynchformerSpec, segments: int, dtype: torch.dtype) -> int:
    """Synchformer's visual tower on ``segments`` of 16 frames at once."""
    tokens = spec.temporal_tokens * spec.grid**2 + 1
    pixels = 16 * 3 * spec.image_size**2 * 12
    return int(segments * (tokens * spec.width * SYNC_COPIES * _size(dtype) + pixels))


def vae_bytes(spec: VAESpec, latent_tokens: int, dtype: torch.dtype) -> int:
    """The VAE on one clip of L tokens, either way."""
    elements = latent_tokens * spec.width * VAE_COPIES + SCORES * latent_tokens**2
    return int(elements * _size(dtype))


def vae_decode_bytes(spec: VAESpec, latent_tokens: int, dtype: torch.dtype, fused: bool = False) -> int:
    """The VAE's decoder on one clip of L tokens: its keys and values, one piece, and the mel frames.

    fused: attention makes no score matrix, as torch's memory-efficient kernel does for heads as wide as this one.
    """
    piece = min(latent_tokens, LATENTS_PER_CHUNK + 2 * CONTEXT_LATENTS)
    whole = 2 * latent_tokens * (spec.width * WIDEST + LATENT_STRIDE * spec.mel_bins)
    scores = 0 if fused else SCORES * piece * latent_tokens
    work = piece * spec.width * VAE_PIECE_COPIES + VAE_DERIVED * spec.width**2
    return int((whole + work + scores) * _size(dtype))


def vocoder_bytes(spec: VocoderSpec, mel_frames: int, frames_per_chunk: int = FRAMES_PER_CHUNK) -> int:
    """The vocoder on a clip of F frames, which it does in pieces."""
    frames = min(mel_frames, frames_per_chunk + 2 * context_frames(spec))
    samples = mel_frames * spec.audio.hop_samples * 4
    return int(frames * spec.audio.hop_samples * spec.width * VOCODER_BYTES_PER_SAMPLE_AND_CHANNEL) + samples


def decode_bytes(vae: VAESpec, vocoder: VocoderSpec, latent_tokens: int, dtype: torch.dtype) -> int:
    """One clip of L tokens through VAE and vocoder, one after the other."""
    return max(vae_decode_bytes(vae, latent_tokens, dtype), vocoder_bytes(vocoder, LATENT_STRIDE * latent_tokens))

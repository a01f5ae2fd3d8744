"""Vocoding in pieces that overlap by the receptive field: the same samples, bounded memory, progress to show."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..spec.model import VocoderSpec
from .bigvgan import BigVGAN
from .fused import FusedBigVGAN

FRAMES_PER_CHUNK = 256
FILTER_REACH = 5
"""Samples that an anti-aliased activation looks to either side: the up and down filters together."""


def context_frames(spec: VocoderSpec) -> int:
    """Mel frames to either side that a frame's samples depend on: 38 for the 16 kHz vocoder, 21 for the 44.1 kHz one.

    Followed backwards from a frame's samples through every layer; tested by what a NaN in a frame reaches.
    """
    low, high = 0, math.prod(spec.rates) - 1  # the samples of frame 0
    reach = 3 + FILTER_REACH  # final convolution and activation
    widest = max(spec.block_kernels)
    block = sum(2 * FILTER_REACH + (widest - 1) // 2 * (dilation + 1) for dilation in spec.block_dilations)
    for rate, kernel in zip(reversed(spec.rates), reversed(spec.kernels), strict=True):
        padding = (kernel - rate) // 2
        low, high = low - reach, high + reach
        low, high = low - block, high + block
        low, high = -((kernel - 1 - padding - low) // rate), (high + padding) // rate
        reach = 0
    return max(-low, high) + 3  # first convolution


@torch.no_grad()
def vocode(
    vocoder: BigVGAN | FusedBigVGAN,
    mel: Tensor,
    frames_per_chunk: int = FRAMES_PER_CHUNK,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Log-mel (B, M, F) -> samples float32 (B, 1, F * hop) in [-1, 1]; ``progress`` gets (frames done, F).

    Pieces end at the clip's true ends without padding, so the result is that of one pass up to the order of additions.
    """
    total = mel.shape[-1]
    context = context_frames(vocoder.spec)
    hop = math.prod(vocoder.spec.rates)
    pieces = []
    for first in range(0, total, frames_per_chunk):
        last = min(first + frames_per_chunk, total)
        left, right = max(0, first - context), min(total, last + context)
        samples = vocoder(mel[..., left:right]).float()
        pieces.append(samples[..., (first - left) * hop : (last - left) * hop])
        if progress:
            progress(last, total)
    return torch.cat(pieces, dim=-1)

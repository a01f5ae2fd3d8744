"""Frames for as many Synchformer segments as either timing of sync tokens needs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..spec.timing import segment_frames, segments_to_encode


def frames_to_encode(frames: Tensor, duration_s: float) -> Tensor:
    """uint8 (frames, 3, size, size) of ``duration_s`` seconds, the last one held until ``segments_to_encode`` are covered.

    The segments do not see each other, so those that the published program has keep their features.
    """
    lacking = segment_frames(segments_to_encode(duration_s)) - frames.shape[0]
    return frames if lacking <= 0 else torch.cat((frames, frames[-1:].expand(lacking, -1, -1, -1)))

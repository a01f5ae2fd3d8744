"""Frame picking and resizing of real videos, against what the published program feeds its encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.media.video import read_video

from .drawing import MEDIA, Golden, assert_close, each_golden

EXACT_MODE = 2e-3


def check(golden: Golden, name: str, pixels: Tensor) -> None:
    """``pixels`` float (frames, 3, H, W) against the stored statistics, absolute."""

    def close(part: str, out: Tensor) -> None:
        expected = golden[f"{name}_{part}"]
        largest = expected.abs().max().item()
        assert_close(f"{golden.path.name}: {name}_{part}", expected, out, EXACT_MODE / largest)

    pooled = golden[f"{name}_pooled"].shape[-2:]
    close("pooled", F.adaptive_avg_pool2d(pixels, pooled))
    close("frame_mean", pixels.mean(dim=(1, 2, 3)))
    close("frame_std", pixels.std(dim=(1, 2, 3)))
    close("first", pixels[0, :, ::8, ::8])


@each_golden("prep_*.safetensors")
def test_frames(path: Path) -> None:
    golden = Golden(path)
    meta = golden.meta
    video = MEDIA / meta["file"]
    if not video.exists():
        pytest.skip(f"the video {video} is not here (set MMAUDIO_MEDIA)")
    frames = read_video(video, meta["duration"])
    assert list(frames.clip.shape) == meta["clip_shape"]
    assert frames.sync is not None
    assert list(frames.sync.shape) == meta["sync_shape"]
    assert frames.duration_s == pytest.approx(meta["got_duration"], abs=1e-9)
    assert frames.clip.dtype == torch.uint8
    check(golden, "clip", frames.clip.float() / 255)
    check(golden, "sync", (frames.sync.float() / 255 - 0.5) / 0.5)

"""The same seed on a CUDA device: the CPU's latents in float32, and near them in half precision."""

from __future__ import annotations

import pytest
import torch

import mmaudio_core
from mmaudio_core.types import Features, VideoFrames

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def latents(device: str, dtype: str) -> torch.Tensor:
    model = mmaudio_core.load("tiny", device=device, dtype=dtype)
    pixels = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, (16, 3, 224, 224), dtype=torch.uint8, generator=pixels)
    sync = torch.randint(0, 256, (50, 3, 224, 224), dtype=torch.uint8, generator=pixels)
    visual = model.encode_frames(VideoFrames(clip, sync, 2.0))
    features = Features(visual.clip, visual.sync, model.encode_text(["rain"]), visual.duration_s)
    return model.sample(features, 2.0, [0, 1]).tokens


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 1e-3), ("float16", 5e-2), ("bfloat16", 2e-1)])
def test_a_seed_means_the_same_on_a_gpu(dtype: str, relative: float) -> None:
    exact, out = latents("cpu", "float32"), latents("cuda", dtype)
    assert ((out - exact).norm() / exact.norm()).item() < relative


def test_sound_and_report() -> None:
    result = mmaudio_core.load("tiny", device="cuda").generate(prompt="rain", duration_s=2.0)
    assert result.audio.samples.device.type == "cpu"
    assert torch.isfinite(result.audio.samples).all()
    assert "GPU memory" in result.report.table()

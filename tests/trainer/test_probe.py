"""What a look at a recording finds: where its peaks lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmaudio_core.media.audio_out import save_audio
from trainer.data.probe import measure


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050])
def test_peaks_lie_where_they_are_heard(rate_hz: int, tmp_path: Path) -> None:
    samples = torch.zeros(round(2.55 * rate_hz))
    for place_s, level in ((0.05, 0.25), (0.95, 0.5), (1.001, 0.75), (2.52, 0.125)):
        samples[round(place_s * rate_hz)] = level
    loudness = measure(save_audio((samples, rate_hz), tmp_path / "clicks.wav"))
    assert loudness.duration_s == samples.shape[0] / rate_hz
    assert {step: peak for step, peak in enumerate(loudness.peaks.tolist()) if peak} == {0: 0.25, 9: 0.5, 10: 0.75, 25: 0.125}

"""VIDEOs that are more than a file: parts of one in time or of its pictures, other colours, many channels of sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.mux import mux_audio
from mmaudio_core.media.soundtrack import load_sound

from .host import TINY, Host
from .made_up import pictures, tone


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_silent_video(iter((pictures(40) * 255).to(torch.uint8).numpy()), 25, tmp_path / "bar.mp4")


def of_a_newer_host(host: Host, path: Path, crop: tuple[int, int] | None = None, trim: tuple[float, float] = (0.0, 0.0)) -> Any:
    """A file's VIDEO as hosts after 0.3.64 have it, showing the upper left ``crop`` (width, height) and ``trim`` (start, s)."""

    class Newer(host.fake("comfy_api.latest").InputImpl.VideoFromFile):  # type: ignore[misc]
        def get_active_trim_window(self) -> tuple[float, float]:
            return trim

        def as_cropped(self) -> Any:
            raise NotImplementedError

        def get_dimensions(self) -> tuple[int, int]:
            height, width = super().get_components().images.shape[1:3]
            return crop or (height, width)  # the other way round, as a host says it that turns pictures

        def get_components(self) -> Any:
            parts = super().get_components()
            width, height = crop or (10_000, 10_000)
            first, last = round(trim[0] * 25), round((trim[0] + (trim[1] or 1e3)) * 25)
            return type(parts)(parts.images[first:last, :height, :width], parts.frame_rate, parts.audio)

    return Newer(str(path))


@pytest.mark.parametrize(
    ("shown", "crop", "trim"),
    [((40, 32, 40), (40, 32), (0.0, 0.0)), ((20, 48, 64), None, (0.4, 0.8))],
    ids=["a crop", "a trim"],
)
def test_a_part_of_a_file_is_what_is_seen_and_what_gets_the_sound(
    host: Host, path: Path, shown: tuple[int, int, int], crop: tuple[int, int] | None, trim: tuple[float, float]
) -> None:
    part, whole = of_a_newer_host(host, path, crop, trim), of_a_newer_host(host, path)
    assert tuple(part.get_components().images.shape[:3]) == shown
    encoders = host.run("LoadEncoders", clip_file=TINY, synchformer_file=TINY)[0]
    seen = host.run("ExtractFeatures", encoders=encoders, video=part)[0]
    alone = host.run("ExtractFeatures", encoders=encoders, images=part.get_components().images, fps=25.0)[0]
    assert torch.allclose(seen.clip, alone.clip, atol=1e-3)
    other = host.run("ExtractFeatures", encoders=encoders, video=whole)[0]
    assert seen.duration_s != other.duration_s or not torch.allclose(seen.clip, other.clip, atol=1e-3)
    out = host.run("CombineVideoAudio", video=part, audio=tone(1.6))[0]
    assert tuple(out.get_components().images.shape[:3]) == shown
    assert hasattr(host.run("CombineVideoAudio", video=whole, audio=tone(1.6))[0], "get_stream_source"), "copied, not encoded"


def test_the_first_hosts_that_trim(host: Host, path: Path) -> None:
    """They keep start and duration to themselves."""
    source = host.of("nodes.host.source")
    video = host.file(path)
    with source.file_of(video) as found:
        assert found == path
    video._VideoFromFile__duration = 1.5999
    with source.file_of(video) as found:
        assert found is None


def test_depth_and_colours_are_handed_on_where_the_host_knows_them(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    latest = host.fake("comfy_api.latest")
    older = host.components(pictures(20), Fraction(25))

    class Newer(latest.InputImpl.VideoFromComponents):  # type: ignore[misc,name-defined]
        def __init__(self, components: Any, bit_depth: int = 8, color_space: str = "sRGB") -> None:
            super().__init__(components)
            self.said = (bit_depth, color_space)

        def get_bit_depth(self) -> int:
            return self.said[0]

        def get_color_space(self) -> str:
            return self.said[1]

    deep, plain = Newer(older.get_components(), 10, "HDR"), Newer(older.get_components(), 8, "auto")
    assert type(host.run("CombineVideoAudio", video=deep, audio=tone(0.8))[0]) is type(older)
    monkeypatch.setattr(latest.InputImpl, "VideoFromComponents", Newer)
    assert host.run("CombineVideoAudio", video=deep, audio=tone(0.8))[0].said == (10, "HDR")
    assert host.run("CombineVideoAudio", video=plain, audio=tone(0.8))[0].said == (8, "sRGB")
    assert host.run("CombineVideoAudio", video=older, audio=tone(0.8))[0].said == (8, "sRGB")


@pytest.mark.parametrize("mode", ["mix", "duck"])
def test_an_original_in_surround_stays_in_surround(host: Host, path: Path, mode: str) -> None:
    hz = np.array([[100, 110, 120, 60, 130, 140]]).T
    original = 0.2 * np.sin(2 * np.pi * hz * np.arange(int(1.6 * 44_100)) / 44_100)
    video = host.file(mux_audio(path, (original, 44_100), path.with_name("surround.mp4")))
    new = torch.zeros(1, 1, int(1.6 * 44_100))
    out = host.run("CombineVideoAudio", video=video, audio={"waveform": new, "sample_rate": 44_100}, original_sound=mode)[0]
    heard = load_sound(out.get_stream_source()).samples[0, :, :44_100].numpy()
    assert np.abs(np.fft.rfft(heard)).argmax(axis=1).tolist() == hz[:, 0].tolist()

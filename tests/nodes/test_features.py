"""Encoders and MMAudio: Extract Features: what is loaded, what is remembered, every kind of input."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.media.make_video import write_silent_video

from .host import TINY, Host
from .made_up import pictures


@pytest.fixture
def encoders(host: Host) -> Any:
    return host.run("LoadEncoders", clip_file=TINY, synchformer_file=TINY)[0]


def noted(method: Any, runs: list[str]) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        runs.append(method.__name__)
        return method(*args, **kwargs)

    return run


@pytest.fixture
def counted(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The towers' runs, in order."""
    runs: list[str] = []
    for module, tower, method in (
        ("mmaudio_core.features.clip", "CLIPEncoder", "encode_image"),
        ("mmaudio_core.features.clip", "CLIPEncoder", "encode_text"),
        ("mmaudio_core.features.synchformer", "SynchformerVisual", "encode"),
    ):
        owner = getattr(host.of(module), tower)
        monkeypatch.setattr(owner, method, noted(getattr(owner, method), runs))
    return runs


def test_images_with_a_rate(host: Host, encoders: Any) -> None:
    features, duration_s = host.run("ExtractFeatures", encoders=encoders, images=pictures(40), fps=20.0).args
    assert duration_s == features.duration_s == 2.0
    assert features.clip.shape == (1, 16, 64)
    assert features.sync.shape == (1, 56, 128)  # 40 are published, 56 are what "steady" timing needs
    assert features.sync_timing is None
    assert features.text is None
    assert encoders.loaded() == ("clip image", "synchformer")


def test_start_and_duration_choose_a_part(host: Host, encoders: Any) -> None:
    whole = pictures(100)
    part = host.run("ExtractFeatures", encoders=encoders, images=whole, fps=25.0, start_s=1.0, duration_s=2.0)
    alone = host.run("ExtractFeatures", encoders=encoders, images=whole[25:75], fps=25.0)
    assert part[1] == alone[1] == 2.0
    assert torch.allclose(part[0].clip, alone[0].clip, atol=1e-4)
    assert torch.allclose(part[0].sync[:, :32], alone[0].sync[:, :32], atol=1e-4)


def test_the_timing_goes_with_the_features_and_not_into_what_is_remembered(
    host: Host, encoders: Any, counted: list[str]
) -> None:
    chosen = {}
    for timing in ("steady", "model", "stretched"):
        given = {"encoders": encoders, "images": pictures(40), "fps": 20.0, "sync_timing": timing}
        chosen[timing] = host.run("ExtractFeatures", **given)[0]
    assert {timing: features.sync_timing for timing, features in chosen.items()} == {
        "steady": "steady",
        "model": None,
        "stretched": "stretched",
    }
    assert counted == ["encode_image", "encode"]


def test_the_same_pictures_are_encoded_once(host: Host, encoders: Any, counted: list[str]) -> None:
    for _ in range(2):
        first = host.run("ExtractFeatures", encoders=encoders, images=pictures(30), fps=25.0)[0]
    assert counted == ["encode_image", "encode"]
    again = host.run("ExtractFeatures", encoders=encoders, video=host.components(pictures(30), 25), duration_s=1.2)[0]
    assert again.clip is first.clip
    assert again.sync is first.sync
    assert counted == ["encode_image", "encode"]
    other = host.run("ExtractFeatures", encoders=encoders, images=pictures(30, shift=1), fps=25.0)[0]
    assert counted == ["encode_image", "encode"] * 2
    assert not torch.allclose(other.clip, first.clip)


def test_few_videos_are_remembered(host: Host, encoders: Any, counted: list[str]) -> None:
    limit = host.of("nodes.host.encoders").REMEMBERED_VIDEOS
    for shift in (*range(limit + 1), limit, 0):  # the last is again, the first has been forgotten
        host.run("ExtractFeatures", encoders=encoders, images=pictures(1, shift))
    assert counted == ["encode_image"] * (limit + 2)


def test_text_loads_no_visual_tower(host: Host, encoders: Any, counted: list[str]) -> None:
    host.run("EncodePrompt", encoders=encoders, prompt="rain", negative_prompt="music")
    assert encoders.loaded() == ("clip text",)
    placed = [patcher.model for patcher, _, _ in host.fake("comfy.model_management").loaded]
    assert not [name for model in placed for name, _ in model.named_parameters() if "visual." in name]
    assert counted == ["encode_text"]
    host.run("EncodePrompt", encoders=encoders)
    assert counted == ["encode_text"]


def test_a_single_image_is_a_still(host: Host, encoders: Any) -> None:
    features, duration_s = host.run("ExtractFeatures", encoders=encoders, images=pictures(1), duration_s=3.0).args
    assert (features.clip.shape, features.sync, features.duration_s) == ((1, 1, 64), None, None)
    assert duration_s == 3.0
    assert host.run("ExtractFeatures", encoders=encoders, images=pictures(1))[1] == 8.0
    assert encoders.loaded() == ("clip image",)


def test_a_video_file_gives_what_its_frames_give(host: Host, encoders: Any, tmp_path: Path) -> None:
    frames = (pictures(30) * 255).round().to(torch.uint8)
    path = write_silent_video(iter(frames.numpy()), 25, tmp_path / "bar.mkv", codec="ffv1", pix_fmt="bgr0")
    by_file = host.run("ExtractFeatures", encoders=encoders, video=host.file(path))[0]
    by_images = host.run("ExtractFeatures", encoders=encoders, images=frames.float() / 255, fps=25.0)[0]
    assert by_file.duration_s == by_images.duration_s
    assert torch.allclose(by_file.clip, by_images.clip, atol=1e-3)
    assert torch.allclose(by_file.sync, by_images.sync, atol=1e-2)


def test_a_video_that_ends_early_is_said(host: Host, encoders: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mmaudio"):
        out = host.run("ExtractFeatures", encoders=encoders, images=pictures(30), fps=25.0, duration_s=5.0)
    assert out[1] == pytest.approx(1.2)
    assert "ends after 1.20 s" in caplog.text


def test_a_modality_without_an_encoder_is_left_out(host: Host) -> None:
    only = host.run("LoadEncoders", clip_file=TINY, synchformer_file="none")[0]
    features = host.run("ExtractFeatures", encoders=only, images=pictures(30), fps=25.0)[0]
    assert features.clip is not None
    assert features.sync is None
    only = host.run("LoadEncoders", clip_file="none", synchformer_file=TINY)[0]
    features = host.run("ExtractFeatures", encoders=only, images=pictures(30), fps=25.0)[0]
    assert features.clip is None
    assert features.sync is not None
    with pytest.raises(ValueError, match="needs CLIP and the loader chose none; choose a file"):
        host.run("EncodePrompt", encoders=only, prompt="rain")
    with pytest.raises(ValueError, match="choose a CLIP file"):
        host.run("ExtractFeatures", encoders=only, images=pictures(1))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"images": pictures(10)}, r"10 images were given with fps 0; set fps to the rate"),
        ({"images": pictures(0), "fps": 25.0}, r"hold no frames; connect"),
        ({}, r"Neither a video nor images are connected; connect one"),
        ({"images": pictures(30), "fps": 25.0, "video": True}, r"Both a video and images are connected; connect one"),
        ({"images": pictures(30), "fps": 25.0, "start_s": 5.0}, r"5 s"),
        ({"images": pictures(10), "fps": 25.0}, r"at least 0\.64 s"),
        ({"images": pictures(30), "fps": 25.0, "duration_s": 0.3}, r"at least 0\.64 s"),
    ],
    ids=["fps", "frames", "none", "both", "start", "short", "duration"],
)
def test_unusable_inputs(host: Host, encoders: Any, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        host.run("ExtractFeatures", encoders=encoders, **inputs)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)


def test_progress_is_shown_and_interrupts(host: Host, encoders: Any) -> None:
    host.run("ExtractFeatures", encoders=encoders, images=pictures(30), fps=25.0)
    assert host.fake("comfy.utils").shown[-1][0] == host.fake("comfy.utils").shown[-1][1] > 0
    management = host.fake("comfy.model_management")
    management.interrupted = True
    with pytest.raises(management.InterruptProcessingException):
        host.run("ExtractFeatures", encoders=encoders, images=pictures(30, shift=3), fps=25.0)


def test_towers_are_placed_whole_and_with_room(host: Host, encoders: Any) -> None:
    host.run("ExtractFeatures", encoders=encoders, images=pictures(30), fps=25.0)
    loaded = host.fake("comfy.model_management").loaded
    assert len(loaded) == 2
    assert all(full and needed > 1e6 for _, needed, full in loaded)

"""The whole chain on the embedded model: every kind of input, batches, seeds, durations, errors."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import mmaudio_core
from mmaudio_core.errors import InputError, MediaError, WeightsError
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.pipeline.device import DTYPES
from mmaudio_core.pipeline.inputs import tell_duration
from mmaudio_core.pipeline.model import MMAudio
from mmaudio_core.pipeline.report import Report
from mmaudio_core.pipeline.sample import SampleSettings
from mmaudio_core.types import Features

from .precision import needs

FAST = SampleSettings(steps=3)


@pytest.fixture(scope="module")
def model() -> MMAudio:
    return mmaudio_core.load("tiny", device="cpu", dtype="float32")


def moving_frames(count: int) -> np.ndarray:
    """Frames uint8 (N, 48, 64, 3): a bar that moves, so that frames differ."""
    frames = np.zeros((count, 48, 64, 3), np.uint8)
    for k, frame in enumerate(frames):
        frame[:, k % 56 : k % 56 + 8] = (255, 40 * (k % 6), 90)
    return frames


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.4 s at 25 fps."""
    return write_silent_video(iter(moving_frames(60)), 25, tmp_path_factory.mktemp("video") / "bar.mp4")


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-4 * b.abs().max())


def test_video_and_text(model: MMAudio, video: Path) -> None:
    result = model.generate(video, "a bar slides", settings=FAST)
    assert result.audio.sample_rate_hz == 16_000
    assert result.duration_s == pytest.approx(2.4)
    assert result.audio.samples.shape == (1, 1, round(2.4 * 16_000))
    assert result.audio.samples.std() > 1e-4
    stages = [s.name for s in result.report.stages]
    assert {"load", "read video", "CLIP image", "Synchformer", "CLIP text", "sampling", "VAE decode", "vocoder"} <= set(stages)


def test_every_input_changes_the_sound(model: MMAudio, video: Path) -> None:
    def sound(**inputs) -> torch.Tensor:
        return model.generate(duration_s=2.0, settings=FAST, **inputs).audio.samples

    sounds = {
        "video and text": sound(video=video, prompt="rain"),
        "video": sound(video=video),
        "text": sound(prompt="rain"),
        "other text": sound(prompt="a dog barks"),
        "negative": sound(prompt="rain", negative_prompt="speech"),
        "image": sound(image=moving_frames(1)[0]),
        "nothing": sound(),
        "other seed": sound(prompt="rain", seed=1),
    }
    names = list(sounds)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not close(sounds[a], sounds[b]), f"{a} sounds like {b}"


def test_the_timing_of_sync_tokens_is_the_networks_or_the_one_asked_for(model: MMAudio, video: Path) -> None:
    seen = model.encode_frames(model.read_video(video))
    assert seen.sync is not None
    assert seen.sync.shape[1] == 64, "48 are published at 2.4 s; 64 are what steady timing needs"
    made = [model.generate(video, settings=FAST, sync_timing=timing).audio.samples for timing in (None, "steady", "stretched")]
    assert torch.equal(made[0], made[1])
    assert not close(made[0], made[2])
    with pytest.raises(InputError, match="The sync timing 'slow' is unknown; use stretched or steady"):
        model.generate(video, settings=FAST, sync_timing="slow")  # type: ignore[arg-type]


def test_frames_with_a_rate_are_as_good_as_a_file(model: MMAudio, tmp_path: Path) -> None:
    frames = moving_frames(50)
    path = write_silent_video(iter(frames), 25, tmp_path / "lossless.mkv", codec="ffv1", pix_fmt="bgr0")
    a = model.generate(path, settings=FAST)
    b = model.generate(frames=frames, fps=25, settings=FAST)
    assert a.duration_s == b.duration_s == pytest.approx(2.0)
    assert close(b.audio.samples, a.audio.samples)


def test_one_seed_one_sound(model: MMAudio, video: Path) -> None:
    many = model.generate(video, ["rain", "wind"], count=3, seed=5, duration_s=1.0, settings=SampleSettings(3, batch_size=4))
    assert [(t.prompt, t.seed) for t in many.takes] == [(p, s) for p in ("rain", "wind") for s in (5, 6, 7)]
    for take in (many.takes[1], many.takes[3]):
        alone = model.generate(video, take.prompt, seed=take.seed, duration_s=1.0, settings=FAST)
        assert close(take.audio.samples, alone.audio.samples)
    assert not close(many.takes[0].audio.samples, many.takes[1].audio.samples)
    assert not close(many.takes[0].audio.samples, many.takes[3].audio.samples)


def test_an_image_repeats_its_token_and_leaves_sync_empty(model: MMAudio) -> None:
    features = model.encode_frames(model.read_image(moving_frames(1)[0]))
    assert features.sync is None
    assert features.clip is not None
    assert features.clip.shape[1] == 1
    by_hand = Features(clip=features.clip.expand(-1, 16, -1))
    assert torch.equal(
        model.sample(features, 2.0, [0], settings=FAST).tokens, model.sample(by_hand, 2.0, [0], settings=FAST).tokens
    )


def test_an_empty_prompt_is_the_stored_empty_feature(model: MMAudio) -> None:
    with_text, without = model.encode_text(["", "rain"]), Features()
    assert torch.equal(with_text[0], model.parts.flow().empty_string_feat.to(with_text))
    a = model.sample(Features(text=with_text[:1]), 1.0, [0], settings=FAST)
    assert torch.equal(a.tokens, model.sample(without, 1.0, [0], settings=FAST).tokens)


def test_text_alone_loads_no_video_tower() -> None:
    fresh = mmaudio_core.load("tiny", device="cpu")
    fresh.generate(prompt="rain", duration_s=1.0, settings=SampleSettings(1))
    assert set(fresh.parts._loaded) == {"flow", "clip text", "vae", "vocoder"}


def test_parts_can_go_as_soon_as_their_stage_is_done(model: MMAudio, video: Path) -> None:
    light = mmaudio_core.load("tiny", device="cpu", keep_parts=False)
    inputs = {"prompt": ["rain", ""], "negative_prompt": "speech", "duration_s": 1.0, "settings": FAST}
    light_takes, takes = light.generate(video, **inputs).takes, model.generate(video, **inputs).takes
    assert light.parts._loaded == {}
    assert all(torch.equal(a.audio.samples, b.audio.samples) for a, b in zip(light_takes, takes, strict=True))


@pytest.mark.parametrize(("dtype", "relative"), [("float16", 3e-2), ("bfloat16", 2e-1)])
def test_half_precision_latents_stay_near_float32(model: MMAudio, dtype: str, relative: float) -> None:
    """Tolerances of docs/numerics.md: 25 guided steps, relative to the norm."""
    needs(DTYPES[dtype])
    half = mmaudio_core.load("tiny", device="cpu", dtype=dtype)
    exact, rough = (m.sample(Features(text=m.encode_text(["rain"])), 1.0, [0]).tokens for m in (model, half))
    assert rough.dtype == torch.float32
    assert ((rough - exact).norm() / exact.norm()).item() < relative


@pytest.mark.parametrize(("dtype", "relative"), [("float16", 5e-3), ("bfloat16", 4e-2)])
def test_half_precision_features_stay_near_float32(model: MMAudio, dtype: str, relative: float) -> None:
    """Tolerances of docs/numerics.md, relative to the norm."""
    needs(DTYPES[dtype])
    half = mmaudio_core.load("tiny", device="cpu", dtype=dtype)
    frames = model.read_frames(moving_frames(25), 25)
    exact, rough = ((m.encode_frames(frames), m.encode_text(["a dog barks"])) for m in (model, half))
    for name, a, b in (
        ("clip", exact[0].clip, rough[0].clip),
        ("sync", exact[0].sync, rough[0].sync),
        ("text", exact[1], rough[1]),
    ):
        assert a is not None
        assert b is not None
        assert ((b.float() - a).norm() / a.norm()).item() < relative, name


def test_a_duration_beyond_the_end_is_cut_with_a_word(model: MMAudio, video: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mmaudio"):
        result = model.generate(video, duration_s=9.0, settings=FAST)
    assert result.duration_s == pytest.approx(2.4)
    assert any("ends after 2.40 s" in m for m in caplog.messages)


def test_the_embedded_model_says_what_it_knows(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.INFO, "mmaudio"):
        model = mmaudio_core.load(weights=tmp_path)
    assert model.variant == "tiny"
    text = " ".join(caplog.messages)
    assert "SMALL MADE-UP WORLD" in text
    assert "mmaudio download" in text
    assert str(tmp_path) in text


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"duration_s": 0.2}, "at least 0.64 s"),
        ({"prompt": "x", "count": 0}, "1 or more"),
        ({"frames": np.zeros((5, 8, 8, 3), np.uint8)}, "without fps"),
        ({"fps": 25}, "without frames"),
        ({"prompt": "x", "seed": -1}, "seed -1"),
        ({"prompt": "x", "seed": 2**64 - 1, "count": 2}, "2\\^64"),
        ({"prompt": "x", "start_s": 1.0}, "without a video file"),
        ({"video": "a.mp4", "image": "b.png"}, "together"),
        ({"frames": np.zeros((40, 8, 8, 3), np.uint8), "fps": 0}, "above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_contradictions_are_named(model: MMAudio, inputs: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        model.generate(**inputs)


def test_settings_are_checked() -> None:
    for wrong in ({"steps": 0}, {"batch_size": 0}, {"solver": "heun"}, {"cfg_strength": float("nan")}, {"tolerance": 0.0}):
        with pytest.raises(InputError):
            SampleSettings(**wrong)  # type: ignore[arg-type]


def test_features_for_another_number_of_seeds(model: MMAudio) -> None:
    text = Features(text=model.encode_text(["a", "b", "c"]))
    with pytest.raises(InputError, match="3 text features for 2 seeds"):
        model.sample(text, 1.0, [0, 1])
    with pytest.raises(InputError, match="No seeds"):
        model.sample(Features(), 1.0, [])


def test_features_of_another_duration(model: MMAudio, video: Path) -> None:
    features = model.encode_frames(model.read_video(video, 2.0))
    with pytest.raises(InputError, match=r"cover 2 s and 1\.5 s"):
        model.sample(features, 1.5, [0])


def test_wishes_that_cannot_be_met() -> None:
    with pytest.raises(InputError, match="dtype 'int8'"):
        mmaudio_core.load("tiny", dtype="int8")
    with pytest.raises(InputError, match="device 'nonsense'"):
        mmaudio_core.load("tiny", device="nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device 'cuda'"):
            mmaudio_core.load("tiny", device="cuda")
    with pytest.raises(WeightsError, match="There is no variant 'huge'"):
        mmaudio_core.load("huge")


def test_missing_weights_name_files_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        mmaudio_core.load("small_16k", weights=tmp_path)
    for word in ("mmaudio_small_16k.pth", "v1-16.pth", "best_netG.pt", "synchformer_state_dict.pth", str(tmp_path), "download"):
        assert word in str(caught.value)


def test_saving(model: MMAudio, video: Path, tmp_path: Path) -> None:
    result = model.generate(video, "x", count=2, duration_s=1.0, settings=FAST)
    assert [p.name for p in result.save(tmp_path / "take.flac")] == ["take_1.flac", "take_2.flac"]
    assert all(p.stat().st_size > 1000 for p in result.save(tmp_path / "take.mp4"))
    with pytest.raises(InputError, match=r"\.mp3"):
        result.save(tmp_path / "take.mp3")
    with pytest.raises(InputError, match="does not exist"):
        result.save(tmp_path / "nowhere" / "take.wav")
    sound = model.generate(prompt="x", duration_s=1.0, settings=FAST)
    with pytest.raises(InputError, match="no video was given"):
        sound.save(tmp_path / "take.mp4")
    with pytest.raises(MediaError):
        model.generate(tmp_path / "absent.mp4")


def test_stopping_through_progress(video: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "sampling" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mmaudio_core.load("tiny", device="cpu", progress=stop).generate(prompt="x", duration_s=1.0)


def test_report_counts_inner_stages_once() -> None:
    import time

    report = Report(torch.device("cpu"))
    with report.stage("outer"):
        time.sleep(0.02)
        with report.stage("inner"):
            time.sleep(0.6)
    seconds = {s.name: s.seconds for s in report.stages}
    assert 0.015 < seconds["outer"] < 0.5
    assert seconds["inner"] >= 0.55
    assert "total" in report.table()


def test_each_result_reports_its_own_run(model: MMAudio, tmp_path: Path) -> None:
    before = {s.name: s.seconds for s in model.report.stages}
    one, two = (model.generate(prompt="a drum", duration_s=1, settings=FAST) for _ in range(2))
    seconds = [{s.name: s.seconds for s in result.report.stages}["sampling"] for result in (one, two)]
    all_of_them = {s.name: s.seconds for s in model.report.stages}["sampling"]
    assert all_of_them == pytest.approx(before.get("sampling", 0.0) + sum(seconds))
    one.save(tmp_path / "one.wav")
    assert "write" in [s.name for s in one.report.stages]
    assert "write" not in [s.name for s in two.report.stages]


@pytest.mark.parametrize(("moving", "word"), [(True, "out of step"), (False, "expect less")])
def test_a_sound_far_beyond_8_s_is_warned_of(moving: bool, word: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mmaudio"):
        tell_duration(None, 12.0, moving)
        assert not caplog.messages
        tell_duration(None, 12.5, moving)
    assert len(caplog.messages) == 1
    assert word in caplog.messages[0]

"""Training of the vocoder: it learns, resumes exactly, and its file is one of the core's; and the segments it is fed with."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mmaudio_core.errors import InputError
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.mux import mux_audio
from mmaudio_core.spec.audio import AUDIO_44K
from mmaudio_core.spec.model import VOCODERS, VocoderSpec
from mmaudio_core.vocoder.bigvgan import BigVGAN
from mmaudio_core.weights.build import load_part
from trainer.adversarial.config import PRESETS, VAEConfig, VocoderConfig, load, preset_names, vocoder_spec
from trainer.adversarial.discriminators import PatchDiscriminator, VocoderDiscriminator
from trainer.adversarial.losses import MelLoss, feature_matching, least_squares_discriminator, least_squares_generator
from trainer.adversarial.segments import Segments
from trainer.adversarial.step import make_sides, update
from trainer.adversarial.vocoder import VocoderTask
from trainer.config.load import parse_toml
from trainer.data.manifest import Row, write_manifest

from .helpers_f import ONE, RATE_HZ, chirps, log_of, lowered, pieces, run, run_command, tags, write_data, write_wav


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def trained(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of 200 steps of the tiny vocoder, by the command."""
    folder = tmp_path_factory.mktemp("vocoder")
    assert run_command("vocoder", manifest, folder) == 0
    return folder


def config(manifest: Path, folder: Path, *changes: str) -> VocoderConfig:
    few = ("train.steps=6", "log.every=1", "log.listen_every=0", "checkpoint.every=3", "data.segment_frames=8")
    names = (f"data.manifest={manifest}", f"train.folder={folder}", *few, "loss.adversarial_from=3", *changes)
    return load(VocoderConfig, "vocoder_smoke", names)


def test_losses_fall(trained: Path) -> None:
    assert lowered(log_of(trained, "loss/mel"), 0.7)
    assert lowered(log_of(trained, "loss/discriminator"), 0.95)
    for name in ("loss/discriminator", "loss/features", "loss/adversarial"):
        assert sorted(log_of(trained, name)) == list(range(110, 201, 10))


def test_tensorboard_has_sounds(trained: Path) -> None:
    found = tags(trained)
    assert {"0/sound real", "0/sound made", "1/sound made"} <= set(found["audio"])
    assert {"0/mel real", "0/mel made"} <= set(found["images"])
    assert {"loss/features", "listen/mel"} <= set(found["scalars"])


def test_the_core_loads_it_exactly(trained: Path, manifest: Path) -> None:
    found = load(VocoderConfig, str(trained))
    module, spec = load_part(trained / "vocoder.safetensors", "vocoder")
    assert isinstance(module, BigVGAN)
    assert spec == vocoder_spec(found.model) == VocoderSpec(80, 16, (16, 16), (32, 32), (3,))
    task = VocoderTask(found, torch.device("cpu"))
    state = torch.load(trained / "checkpoints" / "step-000200.pt", weights_only=True)
    task.generator.load_state_dict(state["generator"])
    assert any("original0" in name for name in state["generator"])
    assert not any("original" in name for name in load_file(trained / "vocoder.safetensors"))
    mel = task.mel_loss.own(torch.from_numpy(chirps(1.0, 1))[None])
    with torch.no_grad():
        sound = module(mel)
        assert sound.shape == (1, 1, mel.shape[2] * 256)
        assert torch.equal(sound, task.generator(mel))
    distance = F.l1_loss(task.mel_loss.own(sound[:, 0]), mel)
    assert distance < 0.5 * F.l1_loss(torch.full_like(mel, -5.0), mel)


def test_resuming_is_exact(manifest: Path, tmp_path: Path) -> None:
    whole, parts = (config(manifest, tmp_path / name) for name in ("whole", "parts"))
    assert run(whole) == 0
    assert run(replace(parts, train=replace(parts.train, steps=4))) == 0
    assert run(parts, resume=True) == 0
    one, two = (load_file(tmp_path / name / "vocoder.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name in ("loss/generator", "loss/discriminator"):
        assert log_of(tmp_path / "whole", name) == log_of(tmp_path / "parts", name)


def test_pieces_make_the_whole_step(manifest: Path, tmp_path: Path) -> None:
    samples = 0.5 * torch.randn(4, 8 * 256, generator=torch.Generator().manual_seed(1))
    results = []
    for count in (1, 2):
        task = VocoderTask(config(manifest, tmp_path), torch.device("cpu"))
        sides = make_sides(task, task.config.optim)
        scalars = [update(task, sides, task.config.optim, pieces(samples, step, count), ONE) for step in (3, 4)]
        results.append([float(s["loss/generator"]) for s in scalars])
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_going_on_from_a_file(trained: Path, manifest: Path, tmp_path: Path) -> None:
    base = trained / "vocoder.safetensors"
    task = VocoderTask(config(manifest, tmp_path, f"model.base={base}"), torch.device("cpu"))
    expected = load_file(base)
    result = task.result()
    assert set(result) == set(expected)
    assert all(torch.allclose(result[name], value, rtol=1e-5, atol=1e-8) for name, value in expected.items())


def test_a_published_architecture_is_trained_under_published_names(manifest: Path, tmp_path: Path) -> None:
    """Every stage of the 16 kHz network, narrow."""
    wanted = config(manifest, tmp_path, "model.width=64", "model.rates=[]", "model.block_kernels=[]")
    task = VocoderTask(wanted, torch.device("cpu"))
    assert task.spec == replace(VOCODERS["16k"], width=64)
    with torch.device("meta"):
        names = set(BigVGAN(task.spec).state_dict())
    assert set(task.result()) == names


def test_adversarial_losses_by_hand() -> None:
    real, made = [torch.tensor([1.0, 0.0])], [torch.tensor([0.5, 0.0])]
    assert float(least_squares_discriminator(real, made)) == pytest.approx(0.5 + 0.125)
    assert float(least_squares_generator(made)) == pytest.approx((0.25 + 1) / 2)
    first, second = [[torch.zeros(2), torch.ones(3)]], [[torch.ones(2), torch.ones(3) * 3]]
    assert float(feature_matching(first, second)) == pytest.approx(1 + 2)


def test_mel_loss_sees_every_resolution() -> None:
    loss = MelLoss(AUDIO_44K, (64, 256, 1024))
    sound = 0.3 * torch.randn(2, 8192, generator=torch.Generator().manual_seed(0))
    assert float(loss(sound, sound)) == 0
    shifted = sound.roll(16, dims=1)
    assert float(loss(sound, shifted)) > float(MelLoss(AUDIO_44K)(sound, shifted)) > 0
    made = sound.clone().requires_grad_()
    loss(shifted, made).backward()
    assert made.grad is not None
    assert torch.isfinite(made.grad).all()


def test_what_is_loud_counts_more() -> None:
    """A whistle that is lost costs more than noise that is lost, which costs more without the weight."""
    time_s = torch.arange(RATE_HZ) / RATE_HZ
    whistle = 0.3 * torch.sin(2 * torch.pi * 3000 * time_s)[None]
    noise = 0.01 * torch.randn(1, RATE_HZ, generator=torch.Generator().manual_seed(0))
    real = whistle + noise
    plain, loud = MelLoss(AUDIO_44K), MelLoss(AUDIO_44K, loud=3.0)
    assert float(plain(real, whistle)) > float(plain(real, noise))
    assert float(loud(real, whistle)) < 1.5 * float(plain(real, whistle))
    assert float(loud(real, noise)) > 3 * float(plain(real, noise))
    assert float(loud(real, real)) == 0
    silence = torch.zeros(1, RATE_HZ)
    assert torch.isfinite(loud(silence, noise))


def test_discriminators() -> None:
    judge = VocoderDiscriminator((2, 3), (256, 512), channels=2)
    scores, inner = judge(torch.randn(2, 2048))
    assert len(scores) == len(inner) == 4
    assert all(s.shape[0] == 2 for s in scores)
    assert [len(layers) for layers in inner] == [5, 5, 5, 5]
    # A period sees only every n-th sample: columns do not mix before the end.
    sound = torch.zeros(1, 600)
    changed = sound.clone()
    changed[:, ::3] = 1
    before, after = (judge.parts[1](s)[1][0] for s in (sound, changed))
    assert torch.equal(before[..., 1:], after[..., 1:])
    assert not torch.equal(before[..., 0], after[..., 0])
    assert PatchDiscriminator(4, 2)(torch.randn(3, 80, 32)).shape[0] == 3
    # The published sizes: 5 periods of 41 M weights in all.
    full = VocoderDiscriminator((2, 3, 5, 7, 11), (1024,), 32)
    weights = sum(p.numel() for name, p in full.parts[0].named_parameters() if "original1" in name)
    assert weights == 5 * (32 + 32 * 128 + 128 * 512 + 512 * 1024 + 1024 * 1024) + 3 * 1024


def test_segments_depend_on_their_place_alone(manifest: Path) -> None:
    data, again = (Segments(manifest, "train", RATE_HZ, 4096, cache) for cache in (0, 1 << 24))
    batch = data.batch(1, 7, range(6))
    assert batch.shape == (6, 4096)
    assert torch.equal(again.batch(1, 7, (4, 1)), batch[[4, 1]])
    streamed = list(again.batches(1, range(5, 9), range(6), workers=3))
    assert torch.equal(streamed[2], batch)
    assert not torch.equal(streamed[1], batch)
    assert not torch.equal(data.batch(2, 7, range(6)), batch)
    assert len({tuple(row[:8].tolist()) for row in batch}) == 6


def test_bad_recordings_are_passed_over_and_listed(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav", 0.2 * chirps(2.0, 0))
    write_wav(tmp_path / "short.wav", chirps(0.1, 0))
    write_wav(tmp_path / "silent.wav", np.zeros(RATE_HZ * 2))
    (tmp_path / "text.wav").write_text("no sound")
    names = ("good", "short", "silent", "text", "absent")
    write_manifest([Row(name, f"{name}.wav") for name in names] + [Row("other", "x.wav", split="val")], tmp_path / "m.tsv")
    data = Segments(tmp_path / "m.tsv", "train", RATE_HZ, 8192)
    batch = data.batch(0, 0, range(24))
    assert {bad.id: bad.reason for bad in data.bad} == {
        "short": "too short",
        "silent": "silent",
        "text": "unreadable",
        "absent": "missing",
    }
    assert len(data.bad) == 4
    assert batch.abs().max() <= 0.9501
    with pytest.raises(InputError, match="none can be used"):
        Segments(tmp_path / "m.tsv", "val", RATE_HZ, 8192).segment(0, 0, 0)
    with pytest.raises(InputError, match="no rows of the split 'test'"):
        Segments(tmp_path / "m.tsv", "test", RATE_HZ, 8192)


def test_ranges_videos_and_peaks(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(RATE_HZ), np.full(RATE_HZ, 0.25), np.zeros(RATE_HZ)]).astype(np.float32)
    write_wav(tmp_path / "a.wav", sound)
    write_manifest([Row("a", "a.wav", start_s=1.0, end_s=2.0)], tmp_path / "a.tsv")
    segment = Segments(tmp_path / "a.tsv", "train", RATE_HZ, RATE_HZ).segment(0, 0, 0)
    assert torch.allclose(segment, torch.full_like(segment, 0.95), atol=1e-4)
    video = write_silent_video((np.full((16, 16, 3), i, np.uint8) for i in range(20)), 10, tmp_path / "v.mp4")
    mux_audio(video, (torch.from_numpy(chirps(2.0, 1)), RATE_HZ), video)
    write_manifest([Row("v", "v.mp4")], tmp_path / "v.tsv")
    segment = Segments(tmp_path / "v.tsv", "train", 44_100, 44_100).segment(0, 0, 0)
    assert segment.shape == (44_100,)
    assert 0.3 < float(segment.abs().max()) <= 0.95 + 1e-6


def test_presets() -> None:
    assert preset_names(VocoderConfig) == ["vocoder_16k", "vocoder_44k", "vocoder_smoke", "vocoder_world"]
    for name in ("vocoder_16k", "vocoder_44k"):
        found = load(VocoderConfig, name)
        assert vocoder_spec(found.model) == VOCODERS[found.model.audio]
        assert found.discriminator.periods == (2, 3, 5, 7, 11)
        assert (found.optim.lr, found.optim.betas, found.loss.features) == (1e-4, (0.8, 0.99), 2.0)
    with pytest.raises(InputError, match="their product must be the hop, 512 samples"):
        load(VocoderConfig, "vocoder_44k", ["model.rates=[4, 4]"])
    with pytest.raises(InputError, match=r"unknown key train\.precision"):
        load(VocoderConfig, "vocoder_44k", ["train.precision=bf16"])


@pytest.mark.parametrize(
    "key",
    [
        *("optim.clip_norm", "optim.warmup_steps", "optim.weight_decay", "optim.rsqrt_after"),
        *("checkpoint.every", "log.listen_every", "data.cache_mb"),
    ],
)
def test_numbers_below_nothing_are_refused(key: str) -> None:
    for kind, name in ((VocoderConfig, "vocoder_44k"), (VAEConfig, "vae_44k")):
        assert load(kind, name, [f"{key}=0"])
        with pytest.raises(InputError, match=rf"{key} is -1; 0 or more is needed"):
            load(kind, name, [f"{key}=-1"])


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in (VAEConfig, VocoderConfig) for n in preset_names(k)])
def test_every_key_of_our_files_is_there_and_explained(kind: type, name: str) -> None:
    text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    lines = text.splitlines()
    for i, line in enumerate(lines):
        assert len(line) <= 128
        if "=" in line and not line.startswith("#"):
            assert "  # " in line or lines[i - 1].startswith("# "), f"{line} is not explained"
    assert _keys(parse_toml(text)) == _keys(kind())


def _keys(value: Any, prefix: str = "") -> set[str]:
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if not isinstance(value, dict):
        return {prefix}
    return {key for name, inner in value.items() for key in _keys(inner, f"{prefix}.{name}")}


def test_numbers_of_a_batch_stay_finite_on_loud_sound(manifest: Path, tmp_path: Path) -> None:
    task = VocoderTask(config(manifest, tmp_path), torch.device("cpu"))
    sides = make_sides(task, task.config.optim)
    samples = torch.sign(torch.randn(2, 8 * 256, generator=torch.Generator().manual_seed(0)))
    scalars = update(task, sides, task.config.optim, pieces(samples, 3, 1), ONE)
    assert all(math.isfinite(float(value)) for value in scalars.values())

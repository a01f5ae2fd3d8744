"""Training of the mel VAE: it learns, resumes exactly, keeps its weights' norms, and its file is one of the core's."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.autoencoder.mp_layers import MPConv1d
from mmaudio_core.autoencoder.vae import VAE
from mmaudio_core.errors import InputError, MMAudioError, WeightsError
from mmaudio_core.spec.audio import AUDIO_16K
from mmaudio_core.spec.model import VAESpec
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.parts import open_raw_part
from trainer.adversarial import loop
from trainer.adversarial.config import VAEConfig, load, preset_names
from trainer.adversarial.losses import divergence, hinge_discriminator, hinge_generator, reconstruction
from trainer.adversarial.step import make_sides, rate_factor, update
from trainer.adversarial.vae import VAETask, force_norms_

from .helpers_f import ONE, log_of, lowered, pieces, run, run_command, tags, write_data


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def trained(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of 200 steps of the tiny VAE, by the command."""
    folder = tmp_path_factory.mktemp("vae")
    assert run_command("vae", manifest, folder, "loss.kl=0.001") == 0
    return folder


def config(manifest: Path, folder: Path, *changes: str) -> VAEConfig:
    """A run of a few steps of an even smaller one."""
    few = (
        "train.steps=6",
        "log.every=1",
        "log.listen_every=0",
        "checkpoint.every=3",
        "data.segment_frames=16",
        "model.width=8",
    )
    names = (f"data.manifest={manifest}", f"train.folder={folder}", *few, "loss.adversarial_from=3", *changes)
    return load(VAEConfig, "vae_smoke", names)


def test_losses_fall(trained: Path) -> None:
    assert lowered(log_of(trained, "loss/mel"), 0.8)
    assert lowered(log_of(trained, "loss/generator"), 0.8)
    heard = log_of(trained, "listen/mel")
    assert heard[200] < heard[100]
    assert lowered(log_of(trained, "loss/discriminator"), 0.95)


def test_the_discriminator_starts_at_its_step(trained: Path) -> None:
    for name in ("loss/discriminator", "loss/adversarial", "norm/discriminator"):
        assert sorted(log_of(trained, name)) == list(range(110, 201, 10))
    assert sorted(log_of(trained, "loss/kl")) == list(range(10, 201, 10))


def test_the_discriminator_is_still_before_its_step(manifest: Path, tmp_path: Path) -> None:
    task = VAETask(config(manifest, tmp_path), torch.device("cpu"))
    sides = make_sides(task, task.config.optim)
    samples = 0.5 * torch.randn(4, 16 * 256, generator=torch.Generator().manual_seed(1))
    before = [p.clone() for p in task.discriminator.parameters()]
    for step in (1, 2, 3):
        update(task, sides, task.config.optim, pieces(samples, step, 1), ONE)
        still = all(torch.equal(a, b) for a, b in zip(before, task.discriminator.parameters(), strict=True))
        assert still == (step < 3)


def test_the_core_loads_it_and_decodes(trained: Path, manifest: Path) -> None:
    module, spec = load_part(trained / "vae.safetensors", "vae")
    assert spec == VAESpec(80, 20, 16)
    assert isinstance(module, VAE)
    data = loop.segments_of(load(VAEConfig, str(trained)), "train")
    mel = MelAnalysis(AUDIO_16K)(data.batch(5, 1, range(8)))
    latents = module.encode(mel).mean
    assert latents.shape == (8, 16, 20)
    made = module.decode(latents)
    assert made.shape == mel.shape
    # Better than the best that knows no sound: each bin's mean.
    assert (made - mel).abs().mean() < 0.8 * (mel.mean((0, 2), keepdim=True) - mel).abs().mean()
    values = open_raw_part(trained / "vae.safetensors").values
    assert values["step"] == 200
    assert "data" in values["licence"]


def test_statistics_are_those_of_the_data(trained: Path, manifest: Path) -> None:
    data = loop.segments_of(load(VAEConfig, str(trained)), "train")
    mels = [MelAnalysis(AUDIO_16K)(data.batch(0, step, range(16))) for step in (-2, -1)]
    frames = torch.cat(mels).transpose(0, 1).flatten(1).double()
    tensors = load_file(trained / "vae.safetensors")
    assert torch.allclose(tensors["data_mean"][0, :, 0], frames.mean(1).float(), atol=1e-5)
    assert torch.allclose(tensors["data_std"][0, :, 0], frames.std(1, correction=0).float(), atol=1e-5)


def test_tensorboard_has_curves_and_spectrograms(trained: Path) -> None:
    found = tags(trained)
    assert {"loss/generator", "loss/kl", "listen/mel", "rate"} <= set(found["scalars"])
    assert {"0/mel real", "1/mel made"} <= set(found["images"])


def test_norms_are_forced(trained: Path) -> None:
    module, _ = load_part(trained / "vae.safetensors", "vae", fold=False)
    layers = [layer for layer in module.modules() if isinstance(layer, MPConv1d)]
    assert len(layers) > 20
    for layer in layers:
        norms = torch.linalg.vector_norm(layer.weight, dim=(1, 2))
        assert torch.allclose(norms, torch.full_like(norms, math.sqrt(layer.weight[0].numel())), rtol=1e-5)


def test_forcing_norms_changes_no_output() -> None:
    torch.manual_seed(0)
    vae = VAE(VAESpec(80, 20, 8))
    mel = torch.randn(1, 80, 8)
    before = vae.decode(vae.encode(mel).mean)
    layers = [layer for layer in vae.modules() if isinstance(layer, MPConv1d)]
    used = [layer.effective_weight() for layer in layers]
    for i, layer in enumerate(layers):
        layer.weight.data *= 0.5 + i / 10  # as far as training might take them
    force_norms_(vae)
    for layer, weight in zip(layers, used, strict=True):
        assert torch.allclose(layer.effective_weight(), weight, rtol=5e-4)
    assert torch.allclose(vae.decode(vae.encode(mel).mean), before, atol=2e-3 * float(before.detach().abs().max()))
    first = [layer.weight.clone() for layer in layers]
    force_norms_(vae)
    assert all(torch.allclose(layer.weight, weight, rtol=1e-6) for layer, weight in zip(layers, first, strict=True))


def test_resuming_is_exact(manifest: Path, tmp_path: Path) -> None:
    whole = config(manifest, tmp_path / "whole")
    parts = config(manifest, tmp_path / "parts")
    assert run(whole) == 0
    assert run(replace(parts, train=replace(parts.train, steps=3))) == 0
    with pytest.raises(InputError, match="holds a run at step-000003; go on with --resume"):
        run(parts)
    assert run(parts, resume=True) == 0
    one, two = (load_file(tmp_path / name / "vae.safetensors") for name in ("whole", "parts"))
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name in ("loss/generator", "loss/discriminator"):
        assert log_of(tmp_path / "whole", name) == log_of(tmp_path / "parts", name)
    assert len(log_of(tmp_path / "parts", "loss/generator")) == 6
    with pytest.raises(InputError, match=r"was begun with another train\.batch \(4 instead of 8\)"):
        run(config(manifest, tmp_path / "parts", "train.batch=8"), resume=True)
    assert load(VAEConfig, str(tmp_path / "parts")) == parts, "what was refused is not written"
    damaged = tmp_path / "parts" / "checkpoints" / "step-000006.pt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="is damaged; remove it"):
        run(parts, resume=True)


def test_a_resumed_run_has_the_optimisers_settings_of_now(manifest: Path, tmp_path: Path) -> None:
    assert run(config(manifest, tmp_path, "train.steps=2", "optim.weight_decay=0.01")) == 0
    changed = ("train.steps=3", "optim.weight_decay=0.02", "optim.betas=[0.5, 0.6]")
    assert run(config(manifest, tmp_path, *changed), resume=True) == 0
    state = torch.load(tmp_path / "checkpoints" / "step-000003.pt", weights_only=True)
    for side in ("generator", "discriminator"):
        (group,) = state[f"{side}_optimizer"]["param_groups"]
        assert (group["weight_decay"], group["betas"]) == (0.02, (0.5, 0.6))


def test_a_copied_run_goes_on_by_itself(manifest: Path, tmp_path: Path) -> None:
    first = config(manifest, tmp_path / "first", "train.steps=2")
    assert run(first) == 0
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert run(load(VAEConfig, str(tmp_path / "copy"), ["train.steps=3"]), resume=True) == 0
    names = [sorted(path.name for path in (tmp_path / run / "checkpoints").iterdir()) for run in ("first", "copy")]
    assert names == [["step-000002.pt"], ["step-000002.pt", "step-000003.pt"]]


def test_a_request_to_stop_saves(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = config(manifest, tmp_path / "stopped", "checkpoint.every=0")
    steps = iter(range(1, 7))

    def stopped_at_4(*arguments: Any) -> Any:
        scalars = update(*arguments)
        if next(steps) == 4:
            signal.raise_signal(signal.SIGTERM)
        return scalars

    monkeypatch.setattr(loop, "update", stopped_at_4)
    assert run(wanted) == 143
    assert [path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["step-000004.pt"]
    assert not (tmp_path / "stopped" / "vae.safetensors").exists()
    monkeypatch.undo()
    assert run(wanted, resume=True) == 0
    assert run(config(manifest, tmp_path / "whole")) == 0
    one, two = (load_file(tmp_path / name / "vae.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_not_finite_ends_the_run(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(*arguments: Any) -> Any:
        return {**update(*arguments), "loss/generator": torch.tensor(math.nan)}

    monkeypatch.setattr(loop, "update", spoilt)
    with pytest.raises(MMAudioError, match=r"At step 1 loss/generator is nan"):
        run(config(manifest, tmp_path))
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_pieces_make_the_whole_step(manifest: Path, tmp_path: Path, precision: str) -> None:
    """Two micro-batches give the weights of one batch."""
    samples = 0.5 * torch.randn(4, 16 * 256, generator=torch.Generator().manual_seed(1))
    results = []
    for count in (1, 2):
        task = VAETask(config(manifest, tmp_path, f"train.precision={precision}"), torch.device("cpu"))
        sides = make_sides(task, task.config.optim)
        scalars = [update(task, sides, task.config.optim, pieces(samples, step, count), ONE) for step in (3, 4)]
        results.append([float(s["loss/generator"].detach()) for s in scalars])
    assert results[0] == pytest.approx(results[1], rel=1e-5 if precision == "float32" else 2e-2)


@pytest.mark.slow
def test_two_ranks_equal_one(manifest: Path, tmp_path: Path) -> None:
    """Half the batch each, averaged gradients: the same losses."""
    for ranks in (1, 2):
        wanted = config(manifest, tmp_path / str(ranks))
        sets = {"data.manifest": manifest, "train.folder": wanted.train.folder, "train.steps": 6, "log.every": 1}
        sets |= {"log.listen_every": 0, "data.segment_frames": 16, "model.width": 8, "loss.adversarial_from": 3}
        changes = [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*launch, "-m", "trainer", "vae", "vae_smoke", *changes, "--quiet"], env=environment, check=True)
    for name in ("loss/generator", "loss/discriminator", "norm/generator"):
        one, two = (log_of(tmp_path / ranks, name) for ranks in ("1", "2"))
        assert len(one) in (4, 6)
        assert one == pytest.approx(two, rel=1e-5)


def test_going_on_from_a_file(trained: Path, manifest: Path, tmp_path: Path) -> None:
    base = trained / "vae.safetensors"
    task = VAETask(config(manifest, tmp_path, f"model.base={base}"), torch.device("cpu"))
    expected = load_file(base)
    assert all(torch.allclose(value, expected[name], rtol=1e-6) for name, value in task.result().items())
    assert run(config(manifest, tmp_path, f"model.base={base}", "train.steps=2", "train.licence=mine")) == 0
    assert torch.equal(load_file(tmp_path / "vae.safetensors")["data_mean"], expected["data_mean"])
    assert open_raw_part(tmp_path / "vae.safetensors").values["licence"] == "mine"
    assert all(torch.equal(value, load_file(base)[name]) for name, value in expected.items())
    with pytest.raises(WeightsError, match=r"is a vae of 16k, but model\.audio is 44k"):
        VAETask(config(manifest, tmp_path, f"model.base={base}", "model.audio=44k"), torch.device("cpu"))


def test_losses_by_hand() -> None:
    mean, std = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 2.0]]])
    assert float(divergence(mean, std, 4)) == pytest.approx((0.5 + 0.5 * (4 - 1 - math.log(4))) / 4)
    real, made = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.5])
    assert float(hinge_discriminator(real, made)) == pytest.approx(0.5 * (0.25 + 0.75))
    assert float(hinge_generator(made)) == pytest.approx(0.75)
    assert float(reconstruction(real, made)) == pytest.approx(2.0)
    assert float(reconstruction(real, made, torch.tensor(math.log(2.0)))) == pytest.approx(1.0 + math.log(2.0))
    # A value at its mean or below counts once, one two deviations above it 1 + 2 * 2 times.
    target = torch.tensor([-3.0, 0.0, 2.0])
    assert float(reconstruction(target, target + 1, loud=2.0)) == pytest.approx((1 + 1 + 5) / 3)


def test_a_trained_variance_finds_its_best(manifest: Path, tmp_path: Path) -> None:
    task = VAETask(config(manifest, tmp_path, "loss.learned_variance=true"), torch.device("cpu"))
    sides = make_sides(task, task.config.optim)
    assert any(p is task.generator.log_variance for group in sides.generator.param_groups for p in group["params"])
    assert not any("log_variance" in name for name in task.result())


def test_presets() -> None:
    assert preset_names(VAEConfig) == ["vae_16k", "vae_44k", "vae_smoke", "vae_world"]
    for name in ("vae_16k", "vae_44k"):
        found = load(VAEConfig, name)
        assert (found.train.batch, found.train.steps, found.optim.lr) == (512, 300_000, 2e-3)
        assert found.loss.adversarial_from == 20_001
        assert name.endswith(found.model.audio)
    with pytest.raises(InputError, match=r"unknown key loss\.kll; the nearest known one is loss\.kl"):
        load(VAEConfig, "vae_44k", ["loss.kll=1"])
    with pytest.raises(InputError, match="one of vae_16k, vae_44k, vae_smoke"):
        load(VAEConfig, "vae_48k")
    with pytest.raises(InputError, match="an even number"):
        load(VAEConfig, "vae_44k", ["data.segment_frames=3"])
    with pytest.raises(InputError, match=r"train\.batch = 512 does not divide"):
        load(VAEConfig, "vae_44k", ["train.accumulation=3"])
    with pytest.raises(InputError, match=r"data\.manifest is empty"):
        load(VAEConfig, "vae_44k", ["data.manifest="])


def test_rates() -> None:
    optim = replace(load(VAEConfig, "vae_44k").optim, warmup_steps=10, rsqrt_after=100, decay_per_step=1.0)
    assert [rate_factor(step, optim) for step in (1, 10, 100, 400)] == pytest.approx([0.1, 1.0, 1.0, 0.5])
    assert rate_factor(3, replace(optim, warmup_steps=0, decay_per_step=0.5)) == pytest.approx(0.25)

"""Mel autoencoder and mel analysis."""

from __future__ import annotations

from pathlib import Path

import torch

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.autoencoder.vae import VAE
from mmaudio_core.spec.audio import audio_for_mel_bins
from mmaudio_core.spec.model import VAESpec

from .drawing import Golden, draw_formula, draw_input, each_golden, load_drawn

ONE_PASS = 1e-5


@torch.no_grad()
@each_golden("vae_*.safetensors", is_large=lambda meta: meta["hidden_dim"] > 128)
def test_vae(path: Path) -> None:
    golden = Golden(path)
    meta = golden.meta
    spec = VAESpec(mel_bins=meta["data_dim"], latent_dim=meta["embed_dim"], width=meta["hidden_dim"])
    vae = load_drawn(lambda: VAE(spec), golden.seed)
    mel = draw_formula(golden.seed, meta["mel_input"], meta["mel_shape"])
    latents = draw_input(golden.seed, "latent", meta["latent_shape"]).transpose(1, 2)

    unfolded = vae.decode(latents)
    vae.fold_weights_()
    posterior = vae.encode(mel)
    golden.check("mean", posterior.mean.transpose(1, 2), ONE_PASS)
    golden.check("std", posterior.std.transpose(1, 2), ONE_PASS)
    golden.check("mel", vae.decode(latents), ONE_PASS)
    golden.check("mel", unfolded, ONE_PASS)
    golden.check("mel", vae.decode_fast(latents), ONE_PASS)
    golden.check("mel", vae.fast_decoder()(latents, 3), ONE_PASS)
    golden.check("mode_roundtrip", vae.decode(posterior.mean), ONE_PASS)


@each_golden("mel_*.safetensors")
def test_mel(path: Path) -> None:
    golden = Golden(path)
    analysis = MelAnalysis(audio_for_mel_bins(golden["mel"].shape[1]))
    golden.check("mel_basis", analysis.filters, ONE_PASS)
    samples = draw_formula(golden.seed, golden.meta["audio_input"], golden.meta["audio_shape"])
    golden.check("mel", analysis(samples), ONE_PASS)

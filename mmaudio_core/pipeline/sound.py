"""Latents to sound and back, for modules that are on their device already."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..autoencoder.mel import MelAnalysis
from ..autoencoder.vae import VAE
from ..errors import InputError
from ..media.resample import resample
from ..spec.timing import sequence_lengths
from ..types import Audio, Latents, Mel
from ..vocoder.bigvgan import BigVGAN
from ..vocoder.choose import fast_vocoder
from ..vocoder.chunked import FRAMES_PER_CHUNK, vocode
from ..vocoder.streamed import StreamedBigVGAN

Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    pass


@torch.no_grad()
def decode_latents(vae: VAE, latents: Latents, progress: Progress = _silent, plain: bool = False) -> Mel:
    """Latents (B, L, C) -> log-mel (B, M, 2 L) on the CPU, clip by clip; ``progress`` gets (clips done, B).

    ``plain``: through the module as it is written, as a reference.
    """
    decode = vae.decode if plain else vae.decode_fast
    device, mels = vae.data_mean.device, []
    for i, tokens in enumerate(latents.tokens):
        mels.append(decode(tokens[None].to(device)).float().cpu())
        progress(i + 1, latents.tokens.shape[0])
    return Mel(torch.cat(mels), latents.duration_s)


@torch.no_grad()
def vocode_mel(
    vocoder: BigVGAN,
    mel: Mel,
    progress: Progress = _silent,
    plain: bool = False,
    frames_per_chunk: int = FRAMES_PER_CHUNK,
) -> Audio:
    """Log-mel (B, M, F) -> samples (B, 1, N) on the CPU, cut to N = round(duration * rate); ``progress`` counts mel frames.

    ``plain``: through the module as it is written, as a reference. ``frames_per_chunk``: mel frames worked on together.

    Raises:
        InputError: when the mel is of another format than the vocoder.
    """
    vocoder.check(mel.values)
    device, rate_hz = vocoder.conv_pre.weight.device, vocoder.spec.audio.sample_rate_hz
    clips, frames = mel.values.shape[0], mel.values.shape[-1]
    run = vocoder if plain else fast_vocoder(vocoder)
    pieces = []
    for i, values in enumerate(mel.values):

        def report(done: int, _: int, before: int = i * frames) -> None:
            progress(before + done, clips * frames)

        clip = values[None].to(device)
        if isinstance(run, StreamedBigVGAN):
            pieces.append(run(clip, report))
        else:
            pieces.append(vocode(run, clip, frames_per_chunk, report).cpu())
    return Audio(torch.cat(pieces)[..., : round(mel.duration_s * rate_hz)], rate_hz)


@torch.no_grad()
def encode_audio(vae: VAE, audio: Audio, duration_s: float | None = None) -> Latents:
    """Sound (B, C, N) of any rate -> means of its latents (B, L, C), channels averaged, padded with silence or cut.

    ``duration_s`` None means the sound's own. The mel analysis runs in float32 on the CPU, as in training.

    Raises:
        InputError: for a sound or duration below 0.64 s, or samples that are not finite.
        DependencyError: when torchaudio is missing or broken.
    """
    spec = vae.spec.audio
    if audio.samples.ndim != 3 or not audio.samples.shape[-1]:
        raise InputError(f"Sound of shape {tuple(audio.samples.shape)} was given; (batch, channels, samples) is needed.")
    if not torch.isfinite(audio.samples).all():
        raise InputError("The sound holds NaN or infinite samples; render it again.")
    lengths = sequence_lengths(audio.duration_s if duration_s is None else duration_s, spec)
    mono = resample(audio.samples.float().cpu().mean(dim=1), audio.sample_rate_hz, spec.sample_rate_hz)
    wanted = spec.samples_of_latents(lengths.latent)
    mono = F.pad(mono[:, :wanted], (0, max(0, wanted - mono.shape[1])))
    mel = MelAnalysis(spec)(mono)
    means = [vae.encode(clip[None].to(vae.data_mean.device)).mean.float().cpu() for clip in mel]
    return Latents(torch.cat(means), lengths.duration_s)

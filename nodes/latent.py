"""Latents: empty ones, those of a sound, and which seconds of them are made anew."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..mmaudio_core.errors import InputError
from ..mmaudio_core.sampling.known import seconds_mask
from ..mmaudio_core.spec.audio import audio_for_latent_dim
from ..mmaudio_core.spec.timing import sequence_lengths
from . import sockets
from .host.errors import plainly

DURATION_KEY = "mmaudio_duration_s"
"""Beside "samples" in a LATENT: the exact seconds, which a count of tokens cannot tell."""


def make_latent(samples: torch.Tensor, duration_s: float) -> dict[str, Any]:
    """LATENT with samples (B, C, L)."""
    return {"samples": samples, "type": "audio", DURATION_KEY: duration_s}


def latent_duration(latent: dict[str, Any]) -> float:
    """The seconds of a LATENT: those it was made for, or where a node changed its length, the roundest that fit.

    Raises:
        InputError: when its channels are of no MMAudio VAE.
    """
    from .host.conditioning import duration_of

    samples = latent["samples"]
    if samples.ndim != 3:
        raise InputError(f"The latent has shape {tuple(samples.shape)}; MMAudio's are (batch, channels, tokens).")
    audio, said = audio_for_latent_dim(samples.shape[1]), latent.get(DURATION_KEY)
    if said is not None and sequence_lengths(said, audio).latent == samples.shape[2]:
        return float(said)
    return duration_of(samples.shape[2], audio)


def check_mask(mask: torch.Tensor, tokens: int) -> None:
    """Raises InputError for a mask of another shape than MMAudio: Regenerate Seconds makes for ``tokens`` L."""
    if mask.ndim != 3 or mask.shape[1:] != (1, tokens):
        raise InputError(
            f"The latent's mask has shape {tuple(mask.shape)} and (1, 1, {tokens}) is needed; make it with "
            "'MMAudio: Regenerate Seconds'."
        )


class EmptyLatent(io.ComfyNode):
    """Where sampling begins."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}EmptyLatent",
            display_name="MMAudio: Empty Latent",
            category=f"{sockets.CATEGORY}/latent",
            description="An empty latent of the model's sample rate, as long as the features, or as duration_s where none are "
            "connected (or they are of a single image).",
            inputs=[
                io.Model.Input("model", tooltip="Says which sample rate is needed."),
                io.Float.Input(
                    "duration_s",
                    default=8.0,
                    min=0.64,
                    max=3600.0,
                    step=0.1,
                    tooltip="Seconds of sound where no video says them; the models were trained on 8.",
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64, tooltip="Takes to make at once, seeds seed, seed + 1, ..."
                ),
                sockets.Features.Input("features", optional=True, tooltip="The latent gets the duration of their video."),
            ],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    @plainly
    def execute(cls, model: Any, duration_s: float, batch_size: int, features: Any = None) -> io.NodeOutput:
        from .host.native_model import flow_of

        spec = flow_of(model).spec
        seconds = duration_s if features is None or features.duration_s is None else features.duration_s
        tokens = sequence_lengths(seconds, spec.audio).latent
        return io.NodeOutput(make_latent(torch.zeros(batch_size, spec.latent_dim, tokens), seconds))


class EncodeAudio(io.ComfyNode):
    """A sound's latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}EncodeAudio",
            display_name="MMAudio: Encode Audio",
            category=f"{sockets.CATEGORY}/latent",
            description="The latent of a sound: to vary it (denoise below 1), to continue it (a duration beyond its end and "
            "MMAudio: Regenerate Seconds from there on) or to repair a part of it.",
            inputs=[
                io.Audio.Input("audio", tooltip="Any rate; stereo is averaged."),
                io.Vae.Input("vae", tooltip="Of MMAudio: Load VAE, of the model's sample rate."),
                io.Float.Input(
                    "duration_s",
                    default=0.0,
                    min=0.0,
                    max=3600.0,
                    step=0.01,
                    tooltip="Seconds of the latent: the sound is cut or followed by silence. 0 means the sound's own.",
                ),
                sockets.Features.Input("features", optional=True, tooltip="The latent gets the duration of their video."),
            ],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    @plainly
    def execute(cls, audio: Any, vae: Any, duration_s: float, features: Any = None) -> io.NodeOutput:
        from .host.native_vae import sound_vae_of
        from .host.sounds import to_audio

        sound = to_audio(audio)
        seconds = duration_s or sound.duration_s
        if features is not None and features.duration_s is not None:
            seconds = features.duration_s
        host_vae = sound_vae_of(vae)
        module = host_vae.use(host_vae.module.encode_bytes(seconds * host_vae.module.spec.sample_rate_hz))
        return io.NodeOutput(make_latent(module.encode_samples(sound.samples, sound.sample_rate_hz, seconds), seconds))


class RegenerateSeconds(io.ComfyNode):
    """A noise mask given in seconds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}RegenerateSeconds",
            display_name="MMAudio: Regenerate Seconds",
            category=f"{sockets.CATEGORY}/latent",
            description="Marks a span of a sound's latent to be made anew; everything else stays as it is. Several of these "
            "add up. Works with MMAudio: Sampler, KSampler and SamplerCustomAdvanced.",
            inputs=[
                io.Latent.Input("latent", tooltip="Of MMAudio: Encode Audio."),
                io.Float.Input("start_s", default=0.0, min=0.0, max=3600.0, step=0.01, tooltip="Where the new part begins."),
                io.Float.Input(
                    "end_s", default=0.0, min=0.0, max=3600.0, step=0.01, tooltip="Where the new part ends; 0 means at the end."
                ),
                io.Float.Input(
                    "feather_s",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Seconds on each side over which old and new blend.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    @plainly
    def execute(cls, latent: dict[str, Any], start_s: float, end_s: float, feather_s: float) -> io.NodeOutput:
        latent_duration(latent)
        samples = latent["samples"]
        rate_hz = audio_for_latent_dim(samples.shape[1]).latent_rate_hz
        mask = seconds_mask(samples.shape[2], rate_hz, start_s, end_s or samples.shape[2] / rate_hz, feather_s)[None, None]
        if (before := latent.get("noise_mask")) is not None:
            check_mask(before, samples.shape[2])
            mask = torch.maximum(mask, before)
        return io.NodeOutput({**latent, "noise_mask": mask})

"""Latents to sound and its picture, and sound under a video."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ..mmaudio_core.errors import InputError
from ..mmaudio_core.media.spectrogram import mel_picture
from ..mmaudio_core.types import Audio, Latents
from . import sockets
from .host.errors import plainly
from .latent import latent_duration
from .preview import player_input, preview

log = logging.getLogger("mmaudio")

MODES = ("replace", "mix", "duck", "keep")


class Decode(io.ComfyNode):
    """LATENT to AUDIO and the spectrogram as IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}Decode",
            display_name="MMAudio: Decode",
            category=f"{sockets.CATEGORY}/decode",
            description="Latents to sound at the model's own sample rate, exactly as long as they were made for, and to a "
            "picture of its spectrogram. Both are shown on the node.",
            inputs=[
                io.Latent.Input("latent", tooltip="Of a sampler."),
                io.Vae.Input("vae", tooltip="Of MMAudio: Load VAE, of the model's sample rate."),
                player_input(),
            ],
            outputs=[io.Audio.Output(display_name="audio"), io.Image.Output(display_name="spectrogram")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    @plainly
    def execute(cls, latent: dict[str, Any], vae: Any, audioUI: Any = None) -> io.NodeOutput:
        from .host.native_vae import sound_vae_of
        from .host.progress import HostProgress
        from .host.sounds import to_host

        host_vae, samples = sound_vae_of(vae), latent["samples"]
        latents = Latents(samples.float().transpose(1, 2), latent_duration(latent))
        module = host_vae.use(host_vae.module.decode_bytes(samples.shape[2]))
        mel, audio = module.decode(latents, HostProgress())
        picture = mel_picture(mel)
        return io.NodeOutput(to_host(audio), picture, ui=preview(cls, to_host(audio), picture))


class CombineVideoAudio(io.ComfyNode):
    """VIDEO and AUDIO to VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        gain: dict[str, Any] = {"default": 0.0, "min": -100.0, "max": 40.0, "step": 0.1}
        return io.Schema(
            node_id=f"{sockets.PREFIX}CombineVideoAudio",
            display_name="MMAudio: Combine Video and Audio",
            category=f"{sockets.CATEGORY}/decode",
            description="Puts sound under a video. replace: only the new sound. mix: both. duck: both, the original lowered "
            "where the new sound is heard. keep: the video as it is. The pictures of a file are not encoded again.",
            inputs=[
                io.Video.Input("video", tooltip="The video that gets the sound."),
                io.Audio.Input("audio", tooltip="The new sound, such as that of MMAudio: Decode."),
                io.Combo.Input(
                    "original_sound", options=list(MODES), default="replace", tooltip="What becomes of the video's own sound."
                ),
                io.Float.Input("audio_gain_db", **gain, tooltip="Gain of the new sound in dB."),
                io.Float.Input("original_gain_db", **gain, tooltip="Gain of the video's own sound in dB."),
                io.Float.Input(
                    "duck_db", default=-12.0, min=-100.0, max=0.0, step=0.5, tooltip="How far duck lowers the original, in dB."
                ),
                io.Float.Input(
                    "start_s",
                    default=0.0,
                    min=0.0,
                    max=1e6,
                    step=0.01,
                    tooltip="Second of the video at which the sound begins: the start_s of the features.",
                ),
                io.Int.Input("take", default=1, min=1, max=4096, tooltip="Which sound of a batch; 1 is the first."),
            ],
            outputs=[io.Video.Output(display_name="video")],
        )

    @classmethod
    @plainly
    def execute(
        cls,
        video: Any,
        audio: Any,
        original_sound: str,
        audio_gain_db: float,
        original_gain_db: float,
        duck_db: float,
        start_s: float,
        take: int,
    ) -> io.NodeOutput:
        from .host.sounds import to_audio
        from .host.video import with_sound

        check_mode(original_sound)
        sound = pick_take(to_audio(audio), take)
        combined, lowered_db = with_sound(video, sound, original_sound, audio_gain_db, original_gain_db, duck_db, start_s)
        if lowered_db:
            log.warning("The sum of both sounds was lowered by %.1f dB so that it does not clip.", -lowered_db)
        return io.NodeOutput(combined)


def check_mode(original_sound: str) -> None:
    """Raises InputError for a word that is not among ``MODES``: the host does not look at what is chosen from a list."""
    if original_sound not in MODES:
        raise InputError(f"The mode {original_sound!r} is unknown; use one of {', '.join(MODES)}.")


def pick_take(audio: Audio, take: int) -> Audio:
    """Sound ``take``, counted from 1, of a batch.

    Raises:
        InputError: when there are fewer.
    """
    count = audio.samples.shape[0]
    if not 1 <= take <= count:
        raise InputError(f"Take {take} was asked for and there are {count}; choose one from 1 to {count}.")
    return Audio(audio.samples[take - 1 : take], audio.sample_rate_hz)

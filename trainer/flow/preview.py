"""Sounds of fixed held-out clips while training goes on: FLAC, the clip's video with the sound, pictures and players."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from mmaudio_core.autoencoder.vae import VAE
from mmaudio_core.errors import InputError, MediaError, MMAudioError
from mmaudio_core.media.audio_out import save_audio
from mmaudio_core.media.mux import mux_audio
from mmaudio_core.media.spectrogram import mel_picture
from mmaudio_core.pipeline.files import EMBEDDED_FILE, EMBEDDED_WARNING
from mmaudio_core.pipeline.sound import decode_latents, vocode_mel
from mmaudio_core.sampling.guidance import guided
from mmaudio_core.sampling.noise import draw_noise
from mmaudio_core.sampling.solvers import euler
from mmaudio_core.spec.audio import AudioSpec
from mmaudio_core.types import Audio, Latents
from mmaudio_core.vocoder.bigvgan import BigVGAN
from mmaudio_core.weights.build import load_part

from ..config.schema import PreviewConfig
from ..data.batch import Batch
from ..data.shards import Record
from ..engine.distributed import Ranks, unwrapped
from .fixed import Fixed
from .log import Log
from .objective import captions_used
from .trainable import TrainableFlow

REFERENCE = "reference"
"""Folder and tag of the clips' own latents through VAE and vocoder: the best that any training can reach."""
log = logging.getLogger("mmaudio")


@dataclass(frozen=True)
class Decoder:
    """VAE and vocoder that make sound of latents."""

    vae: VAE
    vocoder: BigVGAN

    @classmethod
    def load(cls, config: PreviewConfig, audio: AudioSpec, device: torch.device) -> Decoder:
        """The files of ``config``, or those of the embedded model.

        Raises:
            InputError: when one is of another audio format than the network.
            WeightsError: when a file is not what belongs there.
        """
        if not config.vae or not config.vocoder:
            log.warning(EMBEDDED_WARNING)
        parts = {}
        for kind, name in (("vae", config.vae), ("vocoder", config.vocoder)):
            path = Path(name).expanduser() if name else EMBEDDED_FILE
            options = {"encoder": False} if kind == "vae" else {}
            part, spec = load_part(path, kind, dtype=torch.float32, device=device, **options)  # type: ignore[arg-type]
            found: AudioSpec = spec.audio  # type: ignore[attr-defined]
            if found != audio:
                raise InputError(
                    f"preview.{kind} is one of {found.name} and the network needs {audio.name}; name one of its rate."
                )
            parts[kind] = part
        return cls(cast(VAE, parts["vae"]), cast(BigVGAN, parts["vocoder"]))


class Preview:
    """Writes ``previews/step-00005000/01-ID.flac`` and ``.mp4`` for each clip; noise and inputs are the same each time.

    captions: whose captions are used, as in ``[data]``.
    """

    def __init__(
        self, config: PreviewConfig, clips: Fixed, folder: Path, seed: int, ranks: Ranks, out: Log, captions: str = "all"
    ) -> None:
        self._config, self._clips, self._folder, self._captions = config, clips, folder, captions
        self._seed, self._ranks, self._log = seed, ranks, out
        self._decoder: Decoder | None = None
        if ranks.first:
            self._decoder = Decoder.load(config, clips.index.audio, ranks.device)

    def write(self, module: nn.Module, step: int) -> None:
        """Samples on all ranks, which must call together; the first one decodes and writes.

        What cannot be decoded or written is logged: no run of days ends for a sound to listen to.
        """
        latents = self.sample(module)
        if self._decoder is None:
            return
        try:
            if not self._has_reference():
                own = torch.stack([sample.latent_mean for sample in self._clips.samples])
                self._decode(self._decoder, own, REFERENCE, step)
            self._decode(self._decoder, latents, f"step-{step:08d}", step)
        except (MMAudioError, OSError, torch.cuda.OutOfMemoryError) as error:
            log.warning("The preview of step %d is not complete: %s", step, error)

    def _has_reference(self) -> bool:
        """Whether the last clip's is there: what was broken off is made again."""
        return self._path(REFERENCE, len(self._clips) - 1, ".flac").is_file()

    def _path(self, name: str, number: int, ending: str) -> Path:
        return self._folder / name / f"{number + 1:02d}-{_file_name(self._clips.records[number].id)}{ending}"

    @torch.no_grad()
    def sample(self, module: nn.Module) -> Tensor:
        """Un-normalised latents (clips, L, C) on the CPU, by the network as it is and by the core's solver."""
        device = self._ranks.device
        batch = self._clips.batch(range(len(self._clips))).to(device)
        batch = replace(batch, has_text=batch.has_text & captions_used(batch, self._captions))
        nothing = torch.zeros_like(batch.has_video)
        empty = replace(batch, has_video=nothing, has_text=nothing)
        tokens, channels = self._clips.index.widths.latent
        noise = draw_noise([self._seed + i for i in range(len(batch))], tokens, channels).to(device)

        def velocity(x: Tensor, t: Tensor, inputs: Batch) -> Tensor:
            v: Tensor = module(inputs, at=(x, t.to(device).expand(x.shape[0])))
            return v

        module.eval()
        x = euler(guided(velocity, batch, empty, self._config.cfg_strength), noise, self._config.steps)
        module.train()
        network = cast(TrainableFlow, unwrapped(module)).network
        return network.unnormalize(x).cpu()

    def _decode(self, decoder: Decoder, latents: Tensor, name: str, step: int) -> None:
        (self._folder / name).mkdir(parents=True, exist_ok=True)
        duration_s = self._clips.index.duration_s
        for i, record in enumerate(self._clips.records):
            mel = decode_latents(decoder.vae, Latents(latents[i : i + 1], duration_s))
            sound = vocode_mel(decoder.vocoder, mel)
            save_audio(sound, self._path(name, i, ".flac"))
            if self._config.videos and record.kind == "av":
                self._mux(record, sound, [self._path(name, i, ending) for ending in (".mp4", ".mkv")])
            tag = f"{REFERENCE if name == REFERENCE else 'preview'}/{i + 1:02d}"
            self._log.sound(tag, sound, mel_picture(mel)[0], step)

    def _mux(self, record: Record, sound: Audio, targets: list[Path]) -> None:
        source = Path(self._config.media_root) / record.path
        if not source.is_file():
            log.info("No video for the preview of %s: %s is not here (preview.media_root).", record.id, source)
            return
        for target in targets:
            try:
                mux_audio(source, sound, target, start_s=record.start_s, duration_s=record.duration_s)
                return
            except MediaError as error:
                reason = error
        log.warning("No video for the preview of %s: %s", record.id, reason)


def _file_name(sample_id: str) -> str:
    return re.sub(r"[^\w.-]+", "_", sample_id)[:80]

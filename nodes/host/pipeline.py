"""Every part of one variant for the all-in-one node, on the core's own sampler.

Only the host's ModelPatcher and load_models_gpu are used here, none of its model, sampler or VAE classes: this path works on
when those change.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...mmaudio_core.errors import WeightsError
from ...mmaudio_core.pipeline.inputs import DEFAULT_DURATION_S
from ...mmaudio_core.pipeline.memory import flow_bytes
from ...mmaudio_core.pipeline.sample import SampleSettings, sample_latents
from ...mmaudio_core.pipeline.stages import BRANCHES, fuses_attention
from ...mmaudio_core.transformer.model import FlowNetwork
from ...mmaudio_core.types import Audio, Features, Mel, VideoFrames
from ...mmaudio_core.weights.build import load_part
from .acceleration import own_accelerator
from .encoders import Encoders
from .memory import Placed, precision_dtype
from .sound import SoundModule, load_sound_module

log = logging.getLogger("mmaudio")


@dataclass(frozen=True)
class Request:
    """What to make: prompt and negative prompt ("" for none), seconds where no video says them, seeds of the takes."""

    prompt: str
    negative_prompt: str
    duration_s: float | None
    seeds: tuple[int, ...]
    settings: SampleSettings


class Flow:
    """The flow network of one file, loaded when first needed."""

    def __init__(self, path: Path, precision: str) -> None:
        self.path, self.dtype = path, precision_dtype(precision)
        self.accelerator = own_accelerator()
        self._placed: Placed | None = None

    def placed(self) -> Placed:
        """The network under the host's memory management."""
        if self._placed is None:
            module, _ = load_part(self.path, "flow", dtype=self.dtype)
            self._placed = Placed(module)
        return self._placed


class Sound:
    """The mel VAE and the vocoder of two files, loaded when first needed."""

    def __init__(self, vae: Path, vocoder: Path, precision: str) -> None:
        self.vae, self.vocoder, self.dtype = vae, vocoder, precision_dtype(precision)
        self._placed: Placed | None = None

    def placed(self, audio_format: str) -> Placed:
        """Both as one module under the host's memory management.

        Raises:
            WeightsError: when they are not of ``audio_format``, "16k" or "44k".
        """
        if self._placed is None:
            self._placed = Placed(load_sound_module(self.vae, self.vocoder, self.dtype, torch.device("cpu")))
        found = self._placed.module.spec.name
        if found != audio_format:
            raise WeightsError(f"The VAE is a {found} one and the model needs {audio_format}; use files of one rate.")
        return self._placed


class Chain:
    """From frames and prompts to sound with parts that were chosen before."""

    def __init__(self, flow: Flow, sound: Sound, encoders: Encoders) -> None:
        self.flow, self.sound, self.encoders = flow, sound, encoders

    def features(self, frames: VideoFrames, progress: Any = None) -> Features:
        """CLIP and sync features of frames."""
        return self.encoders.encode_frames(frames, progress)

    def generate(self, request: Request, features: Features, progress: Any = None) -> tuple[Mel, Audio]:
        """Log-mel and sound (takes, 1, N) for features (``Features()`` for text alone)."""
        written = [text for text in (request.prompt, request.negative_prompt) if text]
        rows = dict(zip(written, self.encoders.encode_text(written), strict=True)) if written else {}
        if request.prompt:
            features = replace(features, text=rows[request.prompt][None])
        negative = rows[request.negative_prompt][None] if request.negative_prompt else None
        covered_s = features.duration_s or request.duration_s or DEFAULT_DURATION_S

        net = self.flow.placed()
        audio = net.module.spec.audio
        batch = min(len(request.seeds), request.settings.batch_size)
        tokens = round(covered_s * audio.latent_rate_hz) + 1
        fused = fuses_attention(net.device)
        network: FlowNetwork = net.use(flow_bytes(net.module.spec, BRANCHES * batch, tokens, self.flow.dtype, fused))
        how = self.flow.accelerator
        latents = sample_latents(
            network, features, covered_s, request.seeds, negative, request.settings, progress, accelerator=how
        )
        sound = self.sound.placed(audio.name)
        module: SoundModule = sound.use(int(sound.module.decode_bytes(latents.tokens.shape[1])))
        return module.decode(latents, progress)


class Pipeline(Chain):
    """One variant, its parts loaded when first needed."""

    def __init__(self, files: dict[str, Path], precision: str) -> None:
        super().__init__(
            Flow(files["flow"], precision),
            Sound(files["vae"], files["vocoder"], precision),
            Encoders(files["clip"], files["synchformer"], precision),
        )
        self.files = files

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
from ...mmaudio_core.pipeline.sample import SampleSettings, sample_latents
from ...mmaudio_core.transformer.model import FlowNetwork
from ...mmaudio_core.types import Audio, Features, Mel, VideoFrames
from ...mmaudio_core.weights.build import load_part
from .activations import activation_bytes
from .encoders import Encoders
from .memory import Placed, precision_dtype
from .sound import SoundModule, load_sound_module

log = logging.getLogger("mmaudio")

DEFAULT_DURATION_S = 8.0


@dataclass(frozen=True)
class Request:
    """What to make: prompt and negative prompt ("" for none), seconds where no video says them, seeds of the takes."""

    prompt: str
    negative_prompt: str
    duration_s: float | None
    seeds: tuple[int, ...]
    settings: SampleSettings


class Pipeline:
    """One variant, its parts loaded when first needed."""

    def __init__(self, files: dict[str, Path], precision: str) -> None:
        self.files = files
        self.dtype = precision_dtype(precision)
        self.encoders = Encoders(files["clip"], files["synchformer"], precision)
        self._flow: Placed | None = None
        self._sound: Placed | None = None

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

        net = self._flow_network()
        batch = min(len(request.seeds), request.settings.batch_size)
        tokens = round(covered_s * net.module.spec.audio.latent_rate_hz) + 1
        flow: FlowNetwork = net.use(int(activation_bytes(net.module.spec, batch, tokens, self.dtype)))
        latents = sample_latents(flow, features, covered_s, request.seeds, negative, request.settings, progress)
        sound = self._sound_module()
        module: SoundModule = sound.use(int(sound.module.decode_bytes(latents.tokens.shape[1])))
        return module.decode(latents, progress)

    def _flow_network(self) -> Placed:
        if self._flow is None:
            module, _ = load_part(self.files["flow"], "flow", dtype=self.dtype)
            self._flow = Placed(module)
        return self._flow

    def _sound_module(self) -> Placed:
        if self._sound is None:
            module = load_sound_module(self.files["vae"], self.files["vocoder"], self.dtype, torch.device("cpu"))
            wanted = self._flow_network().module.spec.audio.name
            if module.spec.name != wanted:
                raise WeightsError(f"The VAE is a {module.spec.name} one and the model needs {wanted}; use files of one rate.")
            self._sound = Placed(module)
        return self._sound

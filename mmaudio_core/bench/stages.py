"""Every stage of a variant as a call without arguments, computed the plain way or with a backend."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..pipeline.accelerate import PATHS, Accelerator, Speed
from ..pipeline.sample import SampleSettings, sample_latents
from ..pipeline.sound import decode_latents, vocode_mel
from ..types import Audio, Features, Latents, Mel
from .made_up import Inputs, make_inputs, make_part
from .rows import PLAIN

STAGES = ("clip", "text", "sync", "conditions", "step", "vae", "vocoder", "total", "text_only")
"""Those of the pipeline in order; "total" is all of them from frames in memory to sound, "text_only" the same without video."""
TIME, STRENGTH = 0.3, 4.5
COMPILE = "compile"


def speed_of(backend: str) -> Speed:
    """A set of kernels by its name, or the name of an attention backend, which goes with the kernels that are chosen.

    Raises:
        InputError: for an unknown set of kernels.
    """
    return Speed(backend) if backend in PATHS else Speed(attention=backend)


class Stages:
    """One variant on one device in one dtype, through one backend. Parts are made when a stage first needs them."""

    def __init__(self, variant: str, device: torch.device, dtype: torch.dtype, duration_s: float, backend: str) -> None:
        self.variant, self.device, self.dtype = variant, device, dtype
        self.plain = backend in (PLAIN, COMPILE)  # which compiles the modules as they are written, and the fast step
        self.speed = speed_of(backend)
        self._duration_s, self._parts = duration_s, dict[str, Any]()
        self._accelerator = Accelerator(self.speed)

    def call(self, stage: str) -> Callable[[], Any]:
        """The stage's work; the first call also loads and prepares."""
        return {
            "clip": self.clip,
            "text": self.text,
            "sync": self.sync,
            "conditions": self.conditions,
            "step": self.step,
            "vae": self.vae,
            "vocoder": self.vocoder,
            "total": self.total,
            "text_only": lambda: self.total(video=False),
        }[stage]

    @cached_property
    def inputs(self) -> Inputs:
        return make_inputs(self.variant, self._duration_s, self.device)

    @cached_property
    def given(self) -> Features:
        """Features that no encoder made, float32 on the device."""
        spec, lengths = self._part("flow").spec, self.inputs.lengths
        generator = torch.Generator().manual_seed(1)

        def drawn(tokens: int, width: int) -> Tensor:
            return torch.nn.functional.normalize(torch.randn(1, tokens, width, generator=generator), dim=-1).to(self.device)

        return Features(
            drawn(lengths.clip, spec.clip_dim), drawn(lengths.sync, spec.sync_dim), drawn(spec.text_tokens, spec.text_dim)
        )

    @cached_property
    def _latents(self) -> Latents:
        spec, tokens = self._part("flow").spec, self.inputs.lengths.latent
        drawn = torch.randn(1, tokens, spec.latent_dim, generator=torch.Generator().manual_seed(2))
        return Latents(drawn, self._duration_s)

    @cached_property
    def _mel(self) -> Mel:
        bins, frames = self._part("vocoder").spec.mel_bins, 2 * self.inputs.lengths.latent
        drawn = torch.randn(1, bins, frames, generator=torch.Generator().manual_seed(3))
        return Mel(drawn, self._duration_s)

    @torch.no_grad()
    def clip(self) -> Tensor:
        """(1, V, width): features of all frames."""
        features: Tensor = self._part("clip image").encode_image(self.inputs.clip, plain=self.plain)
        return features

    @torch.no_grad()
    def text(self) -> Tensor:
        """(1, T, width): features of one prompt that was not seen before."""
        features: Tensor = self._part("clip text").encode_tokens(self.inputs.tokens)
        return features

    @torch.no_grad()
    def sync(self) -> Tensor:
        """(1, S, width): features of all segments."""
        features: Tensor = self._part("synchformer").encode(self.inputs.sync, plain=self.plain)
        return features

    @torch.no_grad()
    def conditions(self) -> Tensor:
        """(1, S, D), one of the projected conditions of a run, for which both branches are prepared."""
        net, lengths = self._part("flow"), self.inputs.lengths
        conditions = net.conditions(self.given, lengths)
        self._accelerator.empty_conditions(net, lengths)
        rows: Tensor = conditions.sync_rows
        return rows

    @cached_property
    def _velocity(self) -> Any:
        net, lengths = self._part("flow"), self.inputs.lengths
        with torch.no_grad():
            empty = self._accelerator.empty_conditions(net, lengths)
            return self._accelerator.velocity(net, net.conditions(self.given, lengths), empty, STRENGTH, 1, [TIME])

    @torch.no_grad()
    def step(self) -> Tensor:
        """(1, L, C): one guided velocity."""
        velocity: Tensor = self._velocity(self._latents.tokens.to(self.device), torch.tensor(TIME))
        return velocity

    def vae(self) -> Tensor:
        """(1, M, F)."""
        return decode_latents(self._part("vae"), self._latents, plain=self.plain).values

    def vocoder(self) -> Tensor:
        """(1, 1, N)."""
        return vocode_mel(self._part("vocoder"), self._mel, plain=self.plain).samples

    @torch.no_grad()
    def total(self, video: bool = True) -> Tensor:
        """(1, 1, N): from frames and words to sound, 25 steps."""
        features = Features(text=self.text())
        if video:
            features = Features(self.clip(), self.sync(), features.text, self._duration_s)
        settings = SampleSettings()
        latents = sample_latents(
            self._part("flow"), features, self._duration_s, [0], None, settings, accelerator=self._accelerator
        )
        mel = decode_latents(self._part("vae"), latents, plain=self.plain)
        audio: Audio = vocode_mel(self._part("vocoder"), mel, plain=self.plain)
        return audio.samples

    def _part(self, name: str) -> Any:
        if name not in self._parts:
            kind = name.split()[0]
            towers = {"clip image": {"text": False}, "clip text": {"image": False}}.get(name, {})
            part = make_part(self.variant, kind, self.device, self.dtype, **towers)
            if self.speed.kernels == COMPILE:
                _compile(name, part)
            elif not self.plain:
                self._accelerator.equip(part, self.device)
            self._parts[name] = part
        return self._parts[name]


def _compile(name: str, part: Any) -> None:
    """Puts a compiled ``forward`` in front of what a stage calls; the flow network's step is compiled where it is run."""
    target = {"clip image": "visual", "clip text": "transformer", "vae": "decoder", "synchformer": "", "vocoder": ""}.get(name)
    if target is not None:
        module = getattr(part, target) if target else part
        module.forward = torch.compile(module.forward, dynamic=False)

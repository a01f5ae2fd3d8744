"""Sampling: our own fast path, and what makes ComfyUI's custom sampling do the same."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..mmaudio_core.errors import InputError
from ..mmaudio_core.pipeline.sample import SOLVERS, Known, SampleSettings, sample_latents
from ..mmaudio_core.pipeline.stages import BRANCHES
from ..mmaudio_core.sampling.noise import draw_noise
from . import sockets
from .host.errors import plainly
from .latent import check_mask, latent_duration, make_latent

MAX_SEED = 2**64 - 1


def seed_input() -> Any:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=MAX_SEED,
        control_after_generate=True,
        tooltip="One seed, one sound, on every device; further takes use seed + 1, seed + 2, ...",
    )


def sampling_inputs() -> list[Any]:
    """Steps, guidance and solver; shared with the all-in-one node."""
    return [
        io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Euler steps; 25 is the published number."),
        io.Float.Input(
            "cfg",
            default=4.5,
            min=1.0,
            max=50.0,
            step=0.1,
            tooltip="Guidance: how strictly prompt and video are followed. 4.5 as published, 1 is none at half the cost.",
        ),
        io.Combo.Input(
            "solver",
            options=list(SOLVERS),
            default="euler",
            tooltip="euler: fixed steps. midpoint: two evaluations a step. "
            "dopri5: adaptive, hundreds of evaluations, ignores steps.",
        ),
    ]


class Sampler(io.ComfyNode):
    """The core's own sampler on a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}Sampler",
            display_name="MMAudio: Sampler",
            category=f"{sockets.CATEGORY}/sample",
            description="Samples as the published program does, with what does not change between steps computed once. The "
            "same as SamplerCustomAdvanced with CFGGuider, MMAudio: Linear Sigmas, MMAudio: Noise and euler.",
            inputs=[
                io.Model.Input("model", tooltip="Of MMAudio: Load Model or Load Variant, with or without LoRAs."),
                io.Conditioning.Input("positive", tooltip="Of MMAudio: Encode Prompt."),
                io.Conditioning.Input("negative", tooltip="Of MMAudio: Encode Prompt."),
                io.Latent.Input("latent", tooltip="Of MMAudio: Empty Latent, Encode Audio or Regenerate Seconds."),
                seed_input(),
                *sampling_inputs(),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 the latent's own sound is varied: the smaller, the nearer to it.",
                ),
                io.Int.Input("takes", default=1, min=1, max=64, tooltip="Sounds to make with seeds seed, seed + 1, ..."),
            ],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    @plainly
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent: dict[str, Any],
        seed: int,
        steps: int,
        cfg: float,
        solver: Any,
        denoise: float,
        takes: int,
    ) -> io.NodeOutput:
        from .host.acceleration import let_go, model_accelerator
        from .host.conditioning import lengths_for, unpack
        from .host.memory import place_model
        from .host.native_model import flow_of
        from .host.progress import HostProgress

        net, samples, duration_s = flow_of(model), latent["samples"], latent_duration(latent)
        channels = net.spec.latent_dim
        if samples.shape[1] != channels:
            raise InputError(
                f"The latent has {samples.shape[1]} channels and this {net.spec.audio.name} model needs {channels}; "
                "make it with 'MMAudio: Empty Latent' from this model, or encode sound with a VAE of its sample rate."
            )
        features, against = unpack(positive, "positive"), unpack(negative, "negative")
        lengths_for(net, features.duration_s, samples.shape[2])
        duration_s = features.duration_s or duration_s  # those of a sound may differ by less than a token
        if against.clip is not None or against.sync is not None:
            raise InputError("The negative conditioning has video features; connect the negative output of the prompt node.")
        count = max(samples.shape[0], takes)
        if samples.shape[0] > 1 and takes > 1:
            raise InputError(f"A latent batch of {samples.shape[0]} and {takes} takes were given; set one of them to 1.")
        seeds = [(seed + index) % (MAX_SEED + 1) for index in range(count)]
        settings = SampleSettings(steps, cfg, solver)
        batch = 1 if solver == "dopri5" else min(count, settings.batch_size)
        place_model(model, model.model.memory_required((BRANCHES * batch, *samples.shape[1:])))
        known = known_sound(latent, denoise)
        how = model_accelerator(model, net)
        try:
            result = sample_latents(net, features, duration_s, seeds, against.text, settings, HostProgress(), known, how)
        finally:
            let_go(net)
        out = make_latent(result.tokens.transpose(1, 2).contiguous(), duration_s)
        return io.NodeOutput({**{k: v for k, v in latent.items() if k != "samples"}, **out})


def known_sound(latent: dict[str, Any], denoise: float) -> Known | None:
    """What a LATENT brings to begin from, or None where it is only a length.

    Raises:
        InputError: for a mask of another shape than MMAudio: Regenerate Seconds makes.
    """
    samples, mask = latent["samples"], latent.get("noise_mask")
    if mask is None and denoise >= 1.0:
        return None
    if mask is not None:
        check_mask(mask, samples.shape[2])
    return Known(samples.float().transpose(1, 2), None if mask is None else mask.float().transpose(1, 2), denoise)


class LinearSigmas(io.ComfyNode):
    """MMAudio's schedule as SIGMAS."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LinearSigmas",
            display_name="MMAudio: Linear Sigmas",
            category=f"{sockets.CATEGORY}/sample",
            description="The straight schedule that MMAudio samples with, for SamplerCustomAdvanced.",
            inputs=[
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Steps; 25 is the published number."),
                io.Float.Input(
                    "denoise", default=1.0, min=0.01, max=1.0, step=0.01, tooltip="Where to begin; 1 is pure noise."
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas")],
        )

    @classmethod
    def execute(cls, steps: int, denoise: float) -> io.NodeOutput:
        # From 1 - t, not linspace(denoise, 0): the published times are rounded in the other direction.
        return io.NodeOutput(1 - torch.linspace(1 - denoise, 1, steps + 1))


class SeedNoise:
    """NOISE: every clip of a batch from its own seed, so that a take alone equals the take in a batch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generate_noise(self, input_latent: dict[str, Any]) -> torch.Tensor:
        """(B, C, L) for a LATENT of that shape; ``batch_index`` of a chosen part of a batch is respected."""
        batch, channels, tokens = input_latent["samples"].shape
        numbers = input_latent.get("batch_index") or range(batch)
        seeds = [(self.seed + int(number)) % (MAX_SEED + 1) for number in numbers]
        return draw_noise(seeds, tokens, channels).transpose(1, 2).contiguous()


class Noise(io.ComfyNode):
    """MMAudio's noise as NOISE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}Noise",
            display_name="MMAudio: Noise",
            category=f"{sockets.CATEGORY}/sample",
            description="The noise of MMAudio: Sampler for a seed, for SamplerCustomAdvanced.",
            inputs=[seed_input()],
            outputs=[io.Noise.Output(display_name="noise")],
        )

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        return io.NodeOutput(SeedNoise(seed))

"""Features to latents: conditions, guidance and integration for any number of prompts and seeds over one encoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..sampling.known import keeping
from ..sampling.noise import draw_noise
from ..sampling.solvers import dormand_prince, euler, euler_times, midpoint, midpoint_times
from ..spec.timing import SequenceLengths
from ..transformer.model import FlowNetwork
from ..types import Features, Latents
from .accelerate import Accelerator

Solver = Literal["euler", "midpoint", "dopri5"]
SOLVERS: tuple[Solver, ...] = ("euler", "midpoint", "dopri5")
DURATION_TOLERANCE_S = 1e-6
FIXED_STEPS = {"euler": (euler, euler_times), "midpoint": (midpoint, midpoint_times)}
"""Solvers whose times are known beforehand, and these times."""
TOLERANCE, ABSOLUTE_SHARE = 1e-7, 0.01
"""The published relative tolerance of the adaptive solver, and the absolute one by it."""


@dataclass(frozen=True)
class SampleSettings:
    """How to integrate; the published defaults.

    steps: Euler steps, or those of ``midpoint``, which evaluates the network twice in each; the adaptive ``dopri5`` ignores
    them.
    cfg_strength: guidance s; 1 or less means none, at half the cost.
    batch_size: samples that go through the network together; memory against speed, never the result.
    tolerance: of ``dopri5``, relative; the absolute one is a hundredth of it. The published one takes thousands of steps.
    """

    steps: int = 25
    cfg_strength: float = 4.5
    solver: Solver = "euler"
    batch_size: int = 4
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise InputError(f"The solver {self.solver!r} is unknown; use one of {', '.join(SOLVERS)}.")
        if self.steps < 1 or self.batch_size < 1:
            raise InputError(f"steps = {self.steps} and batch_size = {self.batch_size} were given; both must be 1 or more.")
        if not 1e-12 <= self.tolerance <= 1:
            raise InputError(
                f"A tolerance of {self.tolerance:g} was given; it must be from 1e-12 to 1 ({TOLERANCE:g} is usual)."
            )
        if not torch.isfinite(torch.tensor(float(self.cfg_strength))):
            raise InputError(f"A guidance strength of {self.cfg_strength} was given; a finite number is needed (4.5 is usual).")


@dataclass(frozen=True)
class Known:
    """Sound to begin from, for repair, continuation and audio-to-audio.

    tokens: un-normalised latents (1 or B, L, C). regenerate: (1 or B, L, 1) in [0, 1], 1 where sound is made anew and 0 where
    ``tokens`` stay; None means everywhere. denoise: the part of the way from noise that is walked, in (0, 1]; below 1 what is
    made begins from ``tokens`` with noise added, and stays the nearer to them the smaller it is.
    """

    tokens: Tensor
    regenerate: Tensor | None = None
    denoise: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.denoise <= 1:
            raise InputError(f"A denoise of {self.denoise:g} was given; it must be above 0 and at most 1.")

    def check(self, batch: int, latent_tokens: int, latent_dim: int) -> None:
        """Raises InputError when the shapes are not those of ``batch`` samples of (L, C)."""
        wanted = {"latents": (self.tokens, (latent_tokens, latent_dim))}
        if self.regenerate is not None:
            wanted["mask"] = (self.regenerate, (latent_tokens, 1))
        for name, (value, shape) in wanted.items():
            if value.ndim != 3 or value.shape[1:] != shape or value.shape[0] not in (1, batch):
                raise InputError(
                    f"The {name} to begin from have shape {tuple(value.shape)}; this network, duration and batch need "
                    f"(1 or {batch}, {shape[0]}, {shape[1]}). Encode the sound with the same duration and sample rate."
                )


def sample_latents(
    net: FlowNetwork,
    features: Features,
    duration_s: float,
    seeds: Sequence[int],
    negative_text: Tensor | None = None,
    settings: SampleSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
    known: Known | None = None,
    accelerator: Accelerator | None = None,
) -> Latents:
    """One sample per seed: features of batch 1 or len(seeds) -> un-normalised latents (len(seeds), L, C).

    ``negative_text`` (1, T, text width) takes the place of the empty text in the guidance branch. ``progress`` gets (network
    steps done, in all). ``known`` is sound to begin from or to keep parts of.

    Raises:
        InputError: when features cover another duration than ``duration_s``, do not fit the network, or are neither one for
            all seeds nor one per seed.
    """
    settings = settings or SampleSettings()
    lengths = net.lengths(duration_s, features.sync_timing)
    features = _for_lengths(features, lengths)
    for name in ("clip", "sync", "text"):
        value = getattr(features, name)
        if value is not None and value.shape[0] not in (1, len(seeds)):
            raise InputError(
                f"There are {value.shape[0]} {name} features for {len(seeds)} seeds; give one for all of them or one per seed."
            )
    accelerator = accelerator or Accelerator()
    noise = draw_noise(seeds, lengths.latent, net.spec.latent_dim)
    if known is not None:
        known.check(len(seeds), lengths.latent, net.spec.latent_dim)
    # An adaptive step size is chosen from all samples of a batch, so each goes alone: one seed, one sound.
    size = 1 if settings.solver == "dopri5" else settings.batch_size
    starts = range(0, len(seeds), size)
    pieces = []
    for index, first in enumerate(starts):

        def report(done: int, total: int, index: int = index) -> None:
            if progress:
                progress(index * total + done, len(starts) * total)

        part = slice(first, first + size)
        rows = _rows(features, part), lengths, noise[part], negative_text, _known_rows(known, part)
        pieces.append(_sample_batch(net, *rows, settings, report, accelerator))
    return Latents(torch.cat(pieces), duration_s)


@torch.no_grad()
def _sample_batch(
    net: FlowNetwork,
    features: Features,
    lengths: SequenceLengths,
    noise: Tensor,
    negative_text: Tensor | None,
    known: Known | None,
    settings: SampleSettings,
    progress: Callable[[int, int], None],
    accelerator: Accelerator,
) -> Tensor:
    batch, start = noise.shape[0], 0.0 if known is None else 1.0 - known.denoise
    conditions, empty = net.conditions(features, lengths), None
    if settings.cfg_strength > 1 and negative_text is not None:
        empty = net.conditions(Features(text=negative_text), lengths)
    elif settings.cfg_strength > 1:
        empty = accelerator.empty_conditions(net, lengths)
    fixed, asked = FIXED_STEPS.get(settings.solver, (None, None))
    times = asked(settings.steps, start).tolist() if asked else ()
    velocity = accelerator.velocity(net, conditions, empty, settings.cfg_strength, batch, times[:-1])
    noise = noise.to(net.device)
    x = noise
    if known is not None:
        tokens = net.normalize(known.tokens.to(noise)).expand(batch, -1, -1)
        x = (1 - start) * noise + start * tokens
        if known.regenerate is not None:
            velocity = keeping(velocity, tokens, noise, known.regenerate.to(noise))
    if fixed:
        x = fixed(velocity, x, settings.steps, progress, start)
    else:
        rtol, atol = settings.tolerance, settings.tolerance * ABSOLUTE_SHARE
        x = dormand_prince(velocity, x, rtol, atol, progress=progress, start=start)
    return net.unnormalize(x).cpu()


def _known_rows(known: Known | None, part: slice) -> Known | None:
    if known is None:
        return None
    mask = known.regenerate
    return replace(
        known,
        tokens=known.tokens if known.tokens.shape[0] == 1 else known.tokens[part],
        regenerate=mask if mask is None or mask.shape[0] == 1 else mask[part],
    )


def _rows(features: Features, part: slice) -> Features:
    def rows(value: Tensor | None) -> Tensor | None:
        return value if value is None or value.shape[0] == 1 else value[part]

    return replace(features, clip=rows(features.clip), sync=rows(features.sync), text=rows(features.text))


def _for_lengths(features: Features, lengths: SequenceLengths) -> Features:
    """``features`` checked against the duration, with the S sync tokens of the timing, and a still image's token repeated."""
    covered = features.duration_s
    if covered is not None and abs(covered - lengths.duration_s) > DURATION_TOLERANCE_S:
        raise InputError(
            f"The features cover {covered:g} s and {lengths.duration_s:g} s of sound were asked for; "
            "extract features and sample with the same duration."
        )
    if features.sync is not None:
        features = replace(features, sync=features.sync[:, : lengths.sync])
    if features.clip is not None and covered is None and features.clip.shape[1] == 1:
        return replace(features, clip=features.clip.expand(-1, lengths.clip, -1))
    return features

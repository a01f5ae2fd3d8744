"""Training of the material classifier on the world's true sounds."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.autoencoder.mel import MEL_FLOOR
from mmaudio_core.errors import InputError
from mmaudio_core.spec.audio import AUDIO_16K

from ..world import HELD_OUT_SEED, MATERIALS, make_clip
from .classifier import Classifier, MaterialNet, Training
from .strikes import JITTER_FRAMES, PATCH_FRAMES, at_peak, mel_patches, strikes_of

CHECKED_FROM = HELD_OUT_SEED + 200_000_000
"""First seed of the clips on which a classifier's own accuracy is measured: neither trained on nor scored."""
CHECKED_CLIPS = 150
BATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 2e-3, 1e-2
SMOOTHING = 0.05
"""Keeps the classes' logits, and with them KL, from growing without end."""
GAIN_DB = 12.0
"""Strikes are made louder and softer by up to this, since level is no sign of a material."""
FLOOR_LOG10 = (-4.5, -2.5)
"""Range of the level of noise that is added, log10 of magnitude: a vocoder's silence is no true silence."""
Progress = Callable[[int, int], None]
log = logging.getLogger("mmaudio")


def train_classifier(
    seed: int = 0,
    clips: int = 600,
    steps: int = 500,
    checked: int = CHECKED_CLIPS,
    progress: Progress = lambda done, total: None,
) -> Classifier:
    """A classifier trained on the strikes of the seeds 0 to ``clips`` - 1 and measured on ``checked`` held-out ones.

    The same ``seed`` gives the same numbers. ``progress`` gets (clips heard and steps done, in all).

    Raises:
        InputError: for fewer than one clip or step of either, or clips without any strike.
    """
    if min(clips, steps, checked) < 1:
        raise InputError(f"{clips} clips, {steps} steps and {checked} clips to check were given; each must be 1 or more.")
    total = clips + steps + checked
    patches, materials = collect(range(clips), lambda done: progress(done, total))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MaterialNet()
    optimiser = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = torch.randint(len(patches), (BATCH,), generator=generator)
        logits, _ = net(varied(patches[chosen], generator))
        loss = F.cross_entropy(logits, materials[chosen], label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress(clips + step + 1, total)
    classifier = Classifier(net, Training(seed, clips, steps))
    held_out = range(CHECKED_FROM, CHECKED_FROM + checked)
    patches, materials = collect(held_out, lambda done: progress(clips + steps + done, total))
    accuracy = float((classifier.judge(patches)[0].argmax(1) == materials).double().mean())
    log.info("The classifier names the material of %.1f %% of %d held-out strikes.", 100 * accuracy, len(materials))
    return Classifier(net, Training(seed, clips, steps, len(materials), accuracy))


def collect(seeds: Iterable[int], progress: Callable[[int], None] = lambda done: None) -> tuple[Tensor, Tensor]:
    """(log10-mel patches of every strike, index of each one's material) of the true sounds of ``seeds``.

    Raises:
        InputError: when the clips hold no strike.
    """
    patches, materials = [], []
    for done, seed in enumerate(seeds, 1):
        clip = make_clip(seed, AUDIO_16K.sample_rate_hz, pictures=False)
        strikes = strikes_of(clip)
        patches.append(mel_patches(at_peak(torch.from_numpy(clip.samples)), [strike.time_s for strike in strikes]))
        materials += [MATERIALS.index(strike.material) for strike in strikes]
        progress(done)
    if not materials:
        raise InputError("The clips hold no strike; take more clips.")
    return torch.cat(patches), torch.tensor(materials)


def varied(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Each patch a little earlier or later, louder or softer, over noise: what a good but not perfect model may do to it."""
    batch = len(patches)
    shifts = torch.randint(2 * JITTER_FRAMES + 1, (batch,), generator=generator).tolist()
    mel = torch.stack([patch[:, s : s + PATCH_FRAMES] for patch, s in zip(patches, shifts, strict=True)])
    gain_db = GAIN_DB * (2 * torch.rand(batch, 1, 1, generator=generator) - 1)
    low, high = FLOOR_LOG10
    floor = 10 ** (low + (high - low) * torch.rand(batch, 1, 1, generator=generator))
    noise = floor * torch.rand(mel.shape, generator=generator)
    return (10 ** (mel + gain_db / 20) + noise).clamp(min=MEL_FLOOR).log10()

"""The loss on fixed samples by bucket of t, held-out beside training ones, and a warning where the two part."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn

from ..config.schema import ValidationConfig
from ..engine.distributed import Ranks, mean_over_ranks
from ..engine.generators import generator_of
from .fixed import Fixed
from .objective import Draws, without_captions

BUCKETS = 10
_TAG = -1
"""In place of a step in the seed of the noise, which no step of training has."""
log = logging.getLogger("mmaudio")


@dataclass(frozen=True)
class Measured:
    """Mean losses in each tenth of t, from t = 0 (noise) on: held-out data and training data."""

    held_out: tuple[float, ...]
    training: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Held-out mean loss over training mean loss."""
        return sum(self.held_out) / sum(self.training)


class Validation:
    """Measures the network as it is, with every input left in that it is trained with and noise that is the same each time.

    captions: whose captions are used, as in ``[data]``.
    first_ratio: held-out over training loss as it was first measured, kept in checkpoints. The two sets may be of different
    difficulty, so what counts is how far the ratio has grown since.
    """

    def __init__(
        self, config: ValidationConfig, held_out: Fixed, training: Fixed, seed: int, ranks: Ranks, captions: str = "all"
    ) -> None:
        self._config, self._seed, self._ranks, self._captions = config, seed, ranks, captions
        self._held_out, self._training = held_out, training
        self.first_ratio: float | None = None

    def measure(self, module: nn.Module) -> Measured:
        """All ranks must call: under FSDP2 each forward is one of all of them."""
        module.eval()
        found = Measured(*(self._by_bucket(module, samples) for samples in (self._held_out, self._training)))
        module.train()
        if self.first_ratio is None:
            self.first_ratio = found.ratio
        return found

    def parted(self, found: Measured) -> str | None:
        """A sentence where held-out and training loss have parted: more than ``warn_ratio`` further apart than at first."""
        if self.first_ratio is None or found.ratio <= self.first_ratio * (1 + self._config.warn_ratio):
            return None
        return (
            f"Held-out and training loss part: their ratio is {found.ratio:.3f} and was {self.first_ratio:.3f} at first. "
            "The network learns these clips by heart; stop, lower the learning rate, or give it more data."
        )

    @torch.no_grad()
    def _by_bucket(self, module: nn.Module, fixed: Fixed) -> tuple[float, ...]:
        jobs = [(sample, bucket) for sample in range(len(fixed)) for bucket in range(BUCKETS)]
        size, world = self._config.batch, self._ranks.world
        losses = torch.zeros(len(fixed), BUCKETS, device=self._ranks.device)
        # As many forwards on each rank; who has nothing left repeats a job, whose loss is left out.
        rounds = -(-len(jobs) // (size * world))
        for turn in range(rounds):
            first = (turn * world + self._ranks.rank) * size
            own = jobs[first : first + size]
            asked = own or jobs[:1]
            batch = fixed.batch([sample for sample, _ in asked])
            drawn = without_captions(self._draws(fixed, asked), batch, self._captions)
            found = module(batch.to(self._ranks.device), drawn.to(self._ranks.device))
            for (sample, bucket), loss in zip(own, found[: len(own)], strict=True):
                losses[sample, bucket] = loss
        means = mean_over_ranks(losses, self._ranks) * world
        return tuple(means.cpu().double().mean(dim=0).tolist())  # Apple's GPUs know no float64

    def _draws(self, fixed: Fixed, jobs: list[tuple[int, int]]) -> Draws:
        shape = fixed.index.widths.latent
        noise, starts, times = [], [], []
        for sample, bucket in jobs:
            generator = generator_of(self._seed, _TAG, sample)
            noise.append(torch.randn(shape, generator=generator))
            starts.append(torch.randn(shape, generator=generator))
            within = torch.rand(BUCKETS, generator=generator)
            times.append((bucket + within[bucket]) / BUCKETS)
        none = torch.zeros(len(jobs), dtype=torch.bool)
        return Draws(torch.stack(noise), torch.stack(starts), torch.stack(times), none, none, none)


def bucket_names() -> list[str]:
    """ "0.0-0.1" and so on, for logs."""
    return [f"{i / BUCKETS:.1f}-{(i + 1) / BUCKETS:.1f}" for i in range(BUCKETS)]

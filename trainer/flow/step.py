"""One optimiser step: forward and backward of its pieces, clipping, the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..engine.distributed import Ranks, accumulating, clip_gradients, mean_over_ranks
from .objective import Draws
from .optim import set_learning_rate

Judge = Callable[[float, float, list[str], list[float]], bool]
"""(loss, gradient norm, this rank's ids, their losses) -> whether the weights may be updated; every rank asks."""


@dataclass(frozen=True)
class StepResult:
    """loss: mean over the global batch. grad_norm: of the whole gradient before clipping. taken: whether weights changed."""

    loss: float
    grad_norm: float
    taken: bool


def train_step(
    module: nn.Module,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    pieces: Iterable[tuple[Batch, Draws]],
    count: int,
    rate: float,
    clip_norm: float,
    ranks: Ranks,
    judge: Judge | None = None,
) -> StepResult:
    """An update of ``parameters`` by the gradient of the mean loss over ``count`` equally large pieces on each rank.

    pieces: batches and draws on the module's device. rate: learning rate. clip_norm: 0 means no limit.
    """
    optimizer.zero_grad(set_to_none=True)
    ids: list[str] = []
    found: list[Tensor] = []
    for i, (batch, draws) in enumerate(pieces):
        with accumulating(module, last=i == count - 1):
            losses: Tensor = module(batch, draws)
            (losses.mean() / count).backward()
        ids += batch.ids
        found.append(losses.detach())
    norm = clip_gradients(parameters, clip_norm or math.inf)
    own = torch.cat(found)
    # All numbers in one transfer: reading them is the only wait for the device in a step.
    mean, length, *each = torch.cat((mean_over_ranks(own.mean()[None], ranks), norm.to(own)[None], own)).tolist()
    taken = judge is None or judge(mean, length, ids, each)
    if taken:
        set_learning_rate(optimizer, rate)
        optimizer.step()
    return StepResult(mean, length, taken)

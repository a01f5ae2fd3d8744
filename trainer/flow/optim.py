"""AdamW (arXiv 1711.05101) and its learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..config.schema import OptimConfig


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over ``parameters`` in one group: the paper decays all weights alike, by 1e-6."""
    return torch.optim.AdamW(
        list(parameters),
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True if config.fused and device.type == "cuda" else None,
    )


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """The rate of update ``step`` = 0, 1, ... of ``steps``.

    Rises linearly over the warm-up, so that update 0 has lr / warmup_steps and update warmup_steps - 1 has lr; multiplied by
    ``decay_by`` from each share in ``decay_at`` on.
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    passed = sum(step >= round(share * steps) for share in config.decay_at)
    return config.lr * warm * config.decay_by**passed


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of every group; no scheduler is kept, so that nothing but the step must be restored."""
    for group in optimizer.param_groups:
        group["lr"] = rate

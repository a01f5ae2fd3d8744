"""Symmetric contrast in which several things may belong together, and others count neither way."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SCALE = 100.0
"""Logits are multiplied by this at most (arXiv 2103.00020, section 2.5)."""


def similarities(a: Tensor, b: Tensor, log_scale: Tensor) -> Tensor:
    """Features (..., N, D) and (..., N, D) -> logits (..., N, N): their cosines over the trained temperature."""
    return log_scale.exp().clamp(max=MAX_SCALE) * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).transpose(-1, -2)


def contrast(logits: Tensor, together: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over rows and over columns of logits (..., N, N) (arXiv 2103.00020, figure 3).

    together: bool (..., N, N), symmetric; all that are together with a row share its target evenly, and each row is together
    with itself. ignored: bool (..., N, N), symmetric; what is neither together nor apart, as if it were not there.
    """
    if ignored is not None:
        logits = logits.masked_fill(ignored & ~together, float("-inf"))
    targets = together / together.sum(-1, keepdim=True)
    both = []
    for scores in (logits, logits.transpose(-1, -2)):
        # 0 * -inf would be no number.
        entropy = torch.where(together, targets * F.log_softmax(scores, -1), scores.new_zeros(()))
        both.append(-entropy.sum(-1).mean())
    return 0.5 * (both[0] + both[1])


def pairs(values: Tensor) -> Tensor:
    """(..., N) -> (..., N, N): where two values are equal."""
    return values[..., :, None] == values[..., None, :]


def both(values: Tensor) -> Tensor:
    """bool (..., N) -> (..., N, N): where two are both true."""
    return values[..., :, None] & values[..., None, :]

"""How often what belongs together is found."""

from __future__ import annotations

from torch import Tensor


def top1(scores: Tensor, together: Tensor, asked: Tensor | None = None) -> float:
    """The share of rows of scores (..., N, N) whose highest one is of something that is together (bool, same shape) with it.

    asked: bool (..., N), the rows that count; NaN when there is none.
    """
    found = together.gather(-1, scores.argmax(-1, keepdim=True))[..., 0]
    return float((found if asked is None else found[asked]).float().mean())


def offset_s(scores: Tensor, step_s: float, asked: Tensor) -> float:
    """Mean distance in time of the highest score of a row of (..., N, N) from the diagonal, of the rows ``asked`` (..., N)."""
    found = scores.argmax(-1)
    distance = (found - found.new_tensor(range(found.shape[-1]))).abs()
    return float(distance[asked].float().mean()) * step_s

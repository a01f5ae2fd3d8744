"""The average of any relative width after training, as a sum of snapshots (arXiv 2312.02696, section 3.2 and app. C.3).

The coefficients are those whose sum of the snapshots' profiles comes nearest, in least squares, to the wanted profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmaudio_core.errors import InputError

from .profiles import gamma_of, inner_products


@dataclass(frozen=True)
class Fit:
    """A weight for each snapshot, summing to 1; ``error`` is the 2-norm of what is missing of the profile, by the profile's."""

    weights: tuple[float, ...]
    error: float


def fit(profiles: Sequence[tuple[int, float]], step: int, sigma_rel: float) -> Fit:
    """How to put ``profiles`` (step, relative width) together to the one of width ``sigma_rel`` at ``step``.

    Raises:
        InputError: without profiles, for one later than ``step``, or a width that no profile has.
    """
    if not profiles or max(at for at, _ in profiles) > step:
        raise InputError(f"An average at step {step} needs one or more snapshots of that step or before.")
    if (step, sigma_rel) in profiles:  # tracked: no rounding
        return Fit(tuple(float(profile == (step, sigma_rel)) for profile in profiles), 0.0)
    steps, gammas = [at / step for at, _ in profiles], [gamma_of(width) for _, width in profiles]
    target = ([1.0], [gamma_of(sigma_rel)])
    products, aims = inner_products(steps, gammas, steps, gammas), inner_products(steps, gammas, *target)[:, 0]
    size = float(inner_products(*target, *target)[0, 0])
    # Profiles of norm 1 make the system less lopsided; the last row, a Lagrange multiplier, makes the weights sum to 1.
    norms = np.sqrt(np.diag(products))
    count = len(profiles)
    system = np.zeros((count + 1, count + 1))
    system[:count, :count] = products / norms[:, None] / norms
    system[:count, count] = system[count, :count] = 1 / norms
    weights = np.linalg.lstsq(system, np.append(aims / norms, 1.0), rcond=None)[0][:count] / norms
    missing = float(weights @ products @ weights - 2 * weights @ aims + size)
    return Fit(tuple(float(weight) for weight in weights), math.sqrt(max(missing, 0.0) / size))


def summed(
    sources: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
    constants: frozenset[str] = frozenset(),
    release: Callable[[Tensor], None] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """(name, sum of ``weights`` times the tensor of that name) one after the other, in float32, summed in float64.

    ``constants`` are taken from the last source as they are, and so is everything when only one weight is not 0.
    ``release(sum)`` is called after each tensor, to let go of what was read.
    """
    used = [(source, weight) for source, weight in zip(sources, weights, strict=True) if weight]
    for name in sources[-1]:
        if name in constants:
            value = sources[-1][name].clone()
        elif len(used) == 1 and used[0][1] == 1:
            value = used[0][0][name].to(torch.float32, copy=True)
        else:
            total = torch.zeros(sources[-1][name].shape, dtype=torch.float64)
            for source, weight in used:
                total.add_(source[name].to(torch.float64), alpha=weight)
            value = total.float()
        yield name, value
        if release is not None:
            release(value)

"""Power-function averaging profiles: which share each training step has in an average (arXiv 2312.02696, section 3.1, app. C).

At step t the profile is p(s) = (gamma + 1) s^gamma / t^(gamma + 1) on 0 <= s <= t. Its standard deviation divided by t is the
relative width sigma_rel = (gamma + 1)^(1/2) (gamma + 2)^-1 (gamma + 3)^(-1/2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmaudio_core.errors import InputError

WIDEST = 12**-0.5
"""sigma_rel of the plain mean over all steps (gamma = 0)."""


def gamma_of(sigma_rel: float) -> float:
    """The exponent gamma >= 0 of the profile with this relative width: the largest root of the cubic of app. C.1.

    Raises:
        InputError: unless 0 < ``sigma_rel`` <= 12^(-1/2) = 0.2887.
    """
    if not 0 < sigma_rel <= WIDEST:
        raise InputError(f"The relative EMA width is {sigma_rel}; it must lie above 0 and at most at {WIDEST:.4f}.")
    inverse = sigma_rel**-2
    return max(0.0, float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max()))


def sigma_rel_of(gamma: float) -> float:
    """The relative width of the profile with exponent ``gamma``."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def beta(step: int, gamma: float) -> float:
    """What of the average stays in update ``step`` = 1, 2, ...: (1 - 1/step)^(gamma + 1)."""
    return (1 - 1 / step) ** (gamma + 1)


def shares(step: int, sigma_rel: float) -> NDArray[np.float64]:
    """The share of each update 1 ... ``step`` in the average at ``step``, shape (step,); sums to 1.

    Exactly what the recursion with ``beta`` gives, and the integral of the profile over [s - 1, s].
    """
    edges = np.arange(step + 1, dtype=np.float64) / step
    return np.diff(edges ** (gamma_of(sigma_rel) + 1))


def inner_products(
    steps_a: Sequence[float], gammas_a: Sequence[float], steps_b: Sequence[float], gammas_b: Sequence[float]
) -> NDArray[np.float64]:
    """Integral of the product of every profile a (A of them) with every profile b (B): shape (A, B).

    With m = min(t_a, t_b): (g_a + 1)(g_b + 1) m^(g_a + g_b + 1) / ((g_a + g_b + 1) t_a^(g_a + 1) t_b^(g_b + 1)).
    """
    t_a, g_a = np.asarray(steps_a, np.float64)[:, None], np.asarray(gammas_a, np.float64)[:, None]
    t_b, g_b = np.asarray(steps_b, np.float64)[None], np.asarray(gammas_b, np.float64)[None]
    shorter = np.minimum(t_a, t_b)
    # As powers of ratios, since t^gamma alone leaves the range of float64.
    return (g_a + 1) * (g_b + 1) / (g_a + g_b + 1) / shorter * (shorter / t_a) ** (g_a + 1) * (shorter / t_b) ** (g_b + 1)

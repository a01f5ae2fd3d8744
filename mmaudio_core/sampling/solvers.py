"""Integrators of dx/dt = v(x, t) from t = 0 (noise) to t = 1 (data). They see the model only as a function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError, MMAudioError
from .guidance import Velocity

Progress = Callable[[int, int], None]
"""(steps done, steps in all); raise in it to stop."""


def euler_times(steps: int, start: float = 0.0) -> Tensor:
    """The times of ``steps`` Euler steps and the end, float32 (steps + 1,)."""
    return torch.linspace(start, 1, steps + 1)


def euler(velocity: Velocity, x: Tensor, steps: int = 25, progress: Progress | None = None, start: float = 0.0) -> Tensor:
    """``steps`` Euler steps over t = linspace(start, 1, steps + 1); x (B, L, C) float32 is the state at ``start``.

    Raises:
        InputError: when ``steps`` is below 1.
    """
    _check_steps(steps)
    times = euler_times(steps, start)
    for i in range(steps):
        t, t_next = times[i], times[i + 1]
        x = x + float(t_next - t) * velocity(x, t)
        if progress:
            progress(i + 1, steps)
    return x


def midpoint_times(steps: int, start: float = 0.0) -> Tensor:
    """The times at which ``midpoint`` asks for velocities, and the end, float32 (2 steps + 1,)."""
    return euler_times(2 * steps, start)


def midpoint(velocity: Velocity, x: Tensor, steps: int = 25, progress: Progress | None = None, start: float = 0.0) -> Tensor:
    """``steps`` steps of the explicit midpoint rule, of second order, two evaluations each; else as ``euler``.

    Raises:
        InputError: when ``steps`` is below 1.
    """
    _check_steps(steps)
    times = midpoint_times(steps, start)
    for i in range(steps):
        t, middle, t_next = times[2 * i], times[2 * i + 1], times[2 * i + 2]
        half = x + float(middle - t) * velocity(x, t)
        x = x + float(t_next - t) * velocity(half, middle)
        if progress:
            progress(i + 1, steps)
    return x


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"{steps} sampling steps were asked for; 1 or more are needed (25 is the published number).")


# Dormand and Prince 1980, table 2 (RK5(4)7M): nodes, stages, 5th order weights, and 5th minus 4th order weights.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SAFETY, _SHRINK, _GROW, _ORDER = 0.9, 0.2, 10.0, 5


def dormand_prince(
    velocity: Velocity,
    x: Tensor,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    max_evaluations: int = 20_000,
    progress: Progress | None = None,
    start: float = 0.0,
) -> Tensor:
    """Adaptive Dormand-Prince 5(4), the published alternative to Euler; x (B, L, C) at t = ``start``, returned in x's dtype.

    The state is float64, since rtol = 1e-7 is the resolution of float32, and lies on the CPU, since Apple's GPUs have no
    float64. ``progress`` counts thousandths of t.

    Raises:
        MMAudioError: when ``max_evaluations`` of the network did not suffice, or the state stopped being finite.
    """
    state, t = x.cpu().double(), start

    def slope(y: Tensor, time: float) -> Tensor:
        return velocity(y.to(x.dtype).to(x.device), torch.tensor(time, dtype=torch.float32)).cpu().double()

    first = slope(state, start)
    if not torch.isfinite(first).all():
        raise MMAudioError("The network's first velocity is not finite; use float32, or look at the weights.")
    step, evaluations = _first_step(slope, state, first, start, rtol, atol), 2
    while t < 1.0:
        step = min(step, 1.0 - t)
        slopes = [first]
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            y = state + step * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)
            slopes.append(slope(y, min(t + node * step, 1.0)))
        evaluations += len(slopes) - 1
        # The last stage's argument is the fifth-order solution itself (first same as last).
        error = step * sum((e * k for e, k in zip(_ERROR, slopes, strict=True) if e), torch.zeros_like(state))
        tolerance = atol + rtol * torch.maximum(state.abs(), y.abs())
        ratio = float((error / tolerance).square().mean().sqrt())
        if not ratio < float("inf"):
            raise MMAudioError(f"Dormand-Prince left the finite numbers at t = {t:.4f}; use the Euler solver or float32.")
        if ratio <= 1.0:
            t, state, first = (1.0 if step == 1.0 - t else t + step), y, slopes[-1]
            if progress:
                progress(round(1000 * t), 1000)
        if evaluations >= max_evaluations and t < 1.0:
            raise MMAudioError(
                f"Dormand-Prince had used {evaluations} evaluations of the network at t = {t:.4f} with a relative tolerance of "
                f"{rtol:g}; give a larger one, such as 0.001, or use the Euler solver."
            )
        step *= min(_GROW, max(_SHRINK, _SAFETY * ratio ** (-1 / _ORDER) if ratio else _GROW))
    return state.to(x.dtype).to(x.device)


def _first_step(
    slope: Callable[[Tensor, float], Tensor], y: Tensor, first: Tensor, start: float, rtol: float, atol: float
) -> float:
    """Starting step of Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4."""
    scale = atol + rtol * y.abs()
    d0, d1 = (float((v / scale).square().mean().sqrt()) for v in (y, first))
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    d2 = float(((slope(y + h0 * first, min(start + h0, 1.0)) - first) / scale).square().mean().sqrt()) / h0
    h1 = max(1e-6, h0 * 1e-3) if max(d1, d2) <= 1e-15 else (0.01 / max(d1, d2)) ** (1 / _ORDER)
    return min(100 * h0, h1, 1.0)

"""Which backend computes attention of a shape: the one that is asked for, or the fastest by measurement."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ..errors import InputError, first_line
from .listing import AUTO, BACKENDS, named
from .measure import Shape, Timer, fault, time_ms, trial
from .protocol import Attention, Backend, short

log = logging.getLogger("mmaudio")

DEFAULT = "sdpa"
ALIKE = 1.05
"""Backends within 5% of the fastest are alike, and the first in the list is taken, so that noise does not choose."""


class Chooser:
    """Chooses once for each wish, device, dtype, head width and shape, and remembers it as long as it lives.

    timer: ``measure.time_in_graph_ms`` where calls are replayed from CUDA graphs, else ``measure.time_ms``.
    measured: the types of devices on which backends are tried and timed; on others "auto" is "sdpa" at once.

    Choose before a CUDA graph is captured: measuring inside would break the capture.
    """

    def __init__(
        self, backends: Sequence[Backend] = BACKENDS, timer: Timer = time_ms, measured: Sequence[str] = ("cuda",)
    ) -> None:
        self.backends = tuple(backends)
        self.timer, self.measured = timer, tuple(measured)
        self._chosen: dict[tuple[str, bool, torch.device, torch.dtype, int, Shape], Backend] = {}

    def choose(
        self,
        wish: str,
        device: torch.device,
        dtype: torch.dtype,
        head_dim: int,
        shape: tuple[int, int, int, int],
        fall_back: bool = False,
    ) -> Backend:
        """The backend for q (B, H, Nq, d), k and v (B, H, Nk, d); ``shape`` is (B, H, Nq, Nk), ``head_dim`` is d.

        fall_back: what cannot be met is logged and left to "auto", as suits the wish of a host; a user's own raises.

        Raises:
            InputError: when the wish is unknown, or cannot run here, with the reason.
        """
        key = (wish, fall_back, device, dtype, head_dim, Shape(*shape))
        if key not in self._chosen:
            self._chosen[key] = self._decide(*key)
        return self._chosen[key]

    def bound(self, wish: str, fall_back: bool = False) -> Attention:
        """An attention function that chooses by the tensors it gets; raises like ``choose``."""

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            shape = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
            return self.choose(wish, q.device, q.dtype, q.shape[3], shape, fall_back).run(q, k, v)

        return attention

    def _decide(
        self, wish: str, fall_back: bool, device: torch.device, dtype: torch.dtype, head_dim: int, shape: Shape
    ) -> Backend:
        if wish == AUTO:
            return self._fastest(device, dtype, head_dim, shape)
        backend = named(wish, self.backends)
        reason = backend.reason(device, dtype, head_dim)
        # torch's own choice is what is left when all others fail, so there is nothing to find out.
        if reason is None and wish != DEFAULT and device.type in self.measured:
            reason = _tried(backend, device, dtype, head_dim, shape)
        if reason is None:
            return backend
        if fall_back:
            log.warning("The attention backend %s cannot run here: %s; the choice is made by us.", wish, reason)
            return self.choose(AUTO, device, dtype, head_dim, shape)
        raise InputError(f"The attention backend {wish!r} cannot run here: {reason}. Use auto or another one.")

    def _fastest(self, device: torch.device, dtype: torch.dtype, head_dim: int, shape: Shape) -> Backend:
        default = named(DEFAULT, self.backends)
        if device.type not in self.measured:
            return default
        try:
            times, fallen = self._measure(device, dtype, head_dim, shape)
        except torch.cuda.OutOfMemoryError as error:
            times, fallen = {}, {}
            log.warning("There is too little memory to measure attention (%s).", first_line(error))
        for name, reason in fallen.items():
            log.warning("The attention backend %s is left out: %s.", name, reason)
        where = f"{short(dtype)}, {shape} d={head_dim} on {device}"
        if not times:
            log.warning("No attention backend could be measured for %s; %s is used.", where, DEFAULT)
            return default
        best = min(times.values())
        chosen = next(name for name, spent in times.items() if spent <= ALIKE * best)
        measured = ", ".join(f"{name} {spent:.3f} ms" for name, spent in times.items())
        log.info("Attention for %s: %s (%s).", where, chosen, measured)
        return named(chosen, self.backends)

    def _measure(
        self, device: torch.device, dtype: torch.dtype, head_dim: int, shape: Shape
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Milliseconds of every candidate, and why those that say they can run fell out."""
        times: dict[str, float] = {}
        fallen: dict[str, str] = {}
        with torch.no_grad():
            tried = trial(device, dtype, head_dim, shape)
            for backend in self.backends:
                if not (backend.exact and backend.measured) or backend.reason(device, dtype, head_dim) is not None:
                    continue
                reason = fault(backend, tried)
                if reason is not None:
                    fallen[backend.name] = reason
                    continue
                try:
                    times[backend.name] = self.timer(partial(backend.run, tried.q, tried.k, tried.v), device)
                except Exception as error:  # one that cannot be captured in a graph, or fails only now
                    fallen[backend.name] = f"it fails when measured ({type(error).__name__}: {first_line(error)})"
        return times, fallen


@torch.no_grad()
def _tried(backend: Backend, device: torch.device, dtype: torch.dtype, head_dim: int, shape: Shape) -> str | None:
    """What is wrong with a backend that was asked for; one that there is no memory to compare is taken at its word."""
    try:
        return fault(backend, trial(device, dtype, head_dim, shape))
    except torch.cuda.OutOfMemoryError as error:
        log.warning("There is too little memory to check the attention backend %s (%s).", backend.name, first_line(error))
        return None

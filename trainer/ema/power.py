"""Averages of the weights whose width is chosen after training (post-hoc EMA of EDM2, arXiv 2312.02696, section 3).

Ours rather than a package such as ema-pytorch, whose averages are whole copies of a module: here each rank averages only the
shards that it trains, the state travels with the sharded checkpoint of the run, and so a resumed run averages on bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmaudio_core.errors import InputError, WeightsError

from ..engine.distributed import local
from .profiles import beta, gamma_of

DEFAULT_WIDTHS = (0.05, 0.10)
"""The two relative widths that the paper tracks."""


class PowerEMA:
    """Averages of ``parameters`` (name -> parameter), one for each relative width in ``sigma_rels``; none before update 1.

    Averages are float32, on the parameters' devices, and sharded as the parameters are. Frozen parameters are not averaged:
    ``constants`` holds them, so that a snapshot is a whole model. Make it after the parameters were wrapped and are on
    their device.

    Raises:
        InputError: without widths, for the same width twice, or one outside of what a profile can have.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], sigma_rels: Sequence[float] = DEFAULT_WIDTHS) -> None:
        if not sigma_rels or len(set(sigma_rels)) != len(sigma_rels):
            raise InputError(f"The EMA widths are {list(sigma_rels)}; one or more, each of them once, are needed.")
        self.gammas = {float(width): gamma_of(width) for width in sigma_rels}
        self.parameters = {name: p for name, p in parameters.items() if p.requires_grad}
        self.constants = {name: p for name, p in parameters.items() if not p.requires_grad}
        self.averages = {
            width: {name: p.detach().to(torch.float32, copy=True) for name, p in self.parameters.items()}
            for width in self.gammas
        }

    @property
    def sigma_rels(self) -> tuple[float, ...]:
        return tuple(self.gammas)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the parameters as they are after update ``step`` = 1, 2, ...; the first one is taken over as it is.

        To be called for every step, also one whose update was skipped: the parameters were what they were for that long.
        """
        now = [local(p).float() for p in self.parameters.values()]
        for width, gamma in self.gammas.items():
            averages = [local(average) for average in self.averages[width].values()]
            torch._foreach_lerp_(averages, now, 1 - beta(step, gamma))

    def state_dict(self) -> dict[str, Any]:
        """Width -> name -> average, sharing memory with ours; for ``torch.distributed.checkpoint``."""
        return {str(width): dict(averages) for width, averages in self.averages.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copies the averages of ``state``, laid out as our own.

        Raises:
            WeightsError: when it lacks a width or a parameter.
        """
        for width, averages in self.averages.items():
            given = state.get(str(width), {})
            for name, average in averages.items():
                if name not in given:
                    raise WeightsError(f"The stored averages lack {name} at the relative width {width}.")
                local(average).copy_(local(given[name]))

    @contextmanager
    def swapped(self, sigma_rel: float) -> Iterator[None]:
        """Inside, the parameters hold their average of this tracked width, for validation and previews; then what they held.

        Takes memory for one more copy of the parameters.
        """
        averages = self._of(sigma_rel)
        with torch.no_grad():
            held = {name: local(p).clone() for name, p in self.parameters.items()}
            for name, parameter in self.parameters.items():
                local(parameter).copy_(local(averages[name]))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    local(parameter).copy_(held[name])

    def tensors(self, sigma_rel: float) -> dict[str, Tensor]:
        """The averages of a tracked width together with the frozen parameters as they are; shards stay shards."""
        return {**self._of(sigma_rel), **{name: p.detach() for name, p in self.constants.items()}}

    def _of(self, sigma_rel: float) -> dict[str, Tensor]:
        if sigma_rel not in self.averages:
            raise InputError(f"The relative width {sigma_rel} is not tracked; tracked are {list(self.averages)}.")
        return self.averages[sigma_rel]

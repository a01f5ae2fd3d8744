"""Averages of the weights whose width is chosen after training (post-hoc EMA of EDM2, arXiv 2312.02696, section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

DEFAULT_WIDTHS = (0.05, 0.10)


class PowerEMA:
    """Averages of ``parameters`` in float32, one for each relative width; t counts updates from 1."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], sigma_rels: Sequence[float] = DEFAULT_WIDTHS) -> None:
        raise NotImplementedError

    def update(self, step: int) -> None:
        """Takes in the parameters as they are after update ``step`` (1, 2, ...)."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    @contextmanager
    def swapped(self, sigma_rel: float) -> Iterator[None]:
        """Within, the parameters are their average (for validation and previews)."""
        raise NotImplementedError
        yield

    def tensors(self, sigma_rel: float) -> dict[str, Tensor]:
        raise NotImplementedError

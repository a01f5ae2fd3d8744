"""What a fast path made from a module's weights, and when it has to be made anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

Made = TypeVar("Made")


def weights_of(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers: weights in float8 are buffers."""
    return [*module.parameters(), *module.buffers()]


def stamp(module: nn.Module) -> tuple[tuple[Any, ...], ...]:
    """Where a module's weights lie, in what format, and how often they were changed in place."""
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device) for t in weights_of(module))


class Keep:
    """Holds what was made from a module's weights, and makes it anew when they moved or changed. A copy begins empty."""

    def __init__(self) -> None:
        self._key: Any = None
        self._made: Any = None

    def get(self, key: Any, make: Callable[[], Made]) -> Made:
        """What was made for ``key``, else what ``make`` gives now."""
        if self._made is None or self._key != key:
            self._made = None  # the old goes first: both together may not fit
            self._made, self._key = make(), key
        return self._made

    def clear(self) -> None:
        """Lets go of what was made."""
        self._made = self._key = None

    def __reduce__(self) -> tuple[type[Keep], tuple[()]]:
        return Keep, ()


class Keeping(nn.Module):
    """A module with attributes of type ``Keep``, which are cleared when it is moved or changes its number format.

    Moving gives a parameter other memory. What was made from the weights, often views of them, would keep the old one: a host
    that takes the module off a device would not get the memory back.
    """

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        for value in vars(self).values():
            if isinstance(value, Keep):
                value.clear()
        return super()._apply(*args, **kwargs)

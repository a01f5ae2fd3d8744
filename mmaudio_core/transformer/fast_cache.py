"""What the fast path keeps with a network between runs, and when it is no longer true."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor, nn

from .conditions import Conditions

KEPT = 4
"""Shapes of runs (with their graphs) and lengths of empty conditions that are remembered."""


class FastCache:
    """Layers, runs and empty conditions for the fast path of one network; empty in copies of the network."""

    def __init__(self) -> None:
        self._stamp: tuple[Any, ...] = ()
        self._layers: Any = None
        self._runs: OrderedDict[Hashable, Any] = OrderedDict()
        self._empty: OrderedDict[Hashable, Conditions] = OrderedDict()

    def __deepcopy__(self, memo: Any) -> FastCache:
        return FastCache()

    def __reduce__(self) -> Any:
        return FastCache, ()

    @property
    def is_filled(self) -> bool:
        """Whether layers are kept now."""
        return self._layers is not None

    def clear(self) -> None:
        """Lets everything go, device memory included."""
        self.__init__()  # type: ignore[misc]

    def layers(self, net: nn.Module, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gave for these weights and this ``key``, or gives now."""
        if self._layers is None or not self._holds(net, key):
            self.clear()
            self._layers = make()
            self._stamp = (key, tuple(_mark(p) for p in net.parameters()))
        return self._layers

    def _holds(self, net: nn.Module, key: Hashable) -> bool:
        known_key, marks = self._stamp
        parameters = list(net.parameters())
        return (
            known_key == key
            and len(marks) == len(parameters)
            and all(ref() is p and where == _where(p) for (ref, where), p in zip(marks, parameters, strict=True))
        )

    def run(self, key: Hashable, make: Callable[[], Any]) -> tuple[Any, bool]:
        """The run of this ``key``, and whether it was there before."""
        return _remember(self._runs, key, make)

    def empty_conditions(self, key: Hashable, make: Callable[[], Conditions]) -> Conditions:
        """Conditions of missing inputs, which only depend on the lengths."""
        return _remember(self._empty, key, make)[0]


def _remember(kept: OrderedDict[Hashable, Any], key: Hashable, make: Callable[[], Any]) -> tuple[Any, bool]:
    known = key in kept
    if not known:
        while len(kept) >= KEPT:
            kept.popitem(last=False)
        kept[key] = make()
    kept.move_to_end(key)
    return kept[key], known


def _mark(parameter: Tensor) -> tuple[Any, tuple[int, int]]:
    return weakref.ref(parameter), _where(parameter)


def _where(parameter: Tensor) -> tuple[int, int]:
    # Tensors that were made in inference mode count no changes.
    return parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version

"""CUDA graphs of functions that are called again and again with tensors of the same shapes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..devices import on_device_of

log = logging.getLogger("mmaudio")

EAGER_CALLS = 2
"""Calls that run as they are: they fill caches, choose algorithms and allocate, which a capture may not."""
KEPT = 4
"""Graphs that are kept, each with the memory of all that its function computes: a long clip's first, inner and last piece, and
one more."""


class Graphed:
    """``function`` of tensors, replayed as a CUDA graph from the third call on with the same shapes.

    function: no value may be read back from the device and no tensor that it reads besides its arguments may move in memory.
    Where a capture fails, that is said once and the function goes on as it is. Where there are ``KEPT`` graphs, the one
    that was not used for longest goes before the next is made, and its shapes begin anew.
    capture: makes (graph with ``replay``, output) of a function without arguments.
    """

    def __init__(self, function: Callable[..., Tensor], capture: Callable[[Callable[[], Tensor]], Any] | None = None) -> None:
        self._function, self._capture = function, capture or _capture
        self._calls: dict[tuple[Any, ...], int] = {}
        self._graphs: OrderedDict[tuple[Any, ...], tuple[Any, tuple[Tensor, ...], Tensor]] = OrderedDict()
        self._failed = False

    def __call__(self, *tensors: Tensor) -> Tensor:
        with on_device_of(tensors[0]):
            return self._call(tensors)

    def _call(self, tensors: tuple[Tensor, ...]) -> Tensor:
        key = tuple((t.shape, t.dtype, t.device) for t in tensors)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            graph, inputs, output = self._graphs[key]
            for place, value in zip(inputs, tensors, strict=True):
                place.copy_(value)
            graph.replay()
            return output.clone()
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if calls <= EAGER_CALLS or self._failed:
            return self._function(*tensors)
        while len(self._graphs) >= KEPT:  # before the next one takes its memory
            oldest = next(iter(self._graphs))
            del self._graphs[oldest], self._calls[oldest]
        inputs = tuple(t.clone() for t in tensors)
        try:
            graph, output = self._capture(lambda: self._function(*inputs))
        except RuntimeError as error:
            self._failed = True
            log.info("This step could not be captured as a CUDA graph (%s); it runs without.", str(error).splitlines()[0])
            return self._function(*tensors)
        self._graphs[key] = graph, inputs, output
        graph.replay()
        return output.clone()


def _capture(function: Callable[[], Tensor]) -> tuple[Any, Tensor]:
    """On the current device, on a stream of it: the one that torch would take is of the device of the process's first graph."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=_stream(torch.cuda.current_device())):
        output = function()
    return graph, output


@cache
def _stream(index: int) -> Any:
    # One for all graphs of a device: every stream that multiplies matrices keeps a workspace for that.
    return torch.cuda.Stream(index)

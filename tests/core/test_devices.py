"""Which device is meant, and that work goes there and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from mmaudio_core.attention.measure import time_in_graph_ms
from mmaudio_core.bench.timing import measure
from mmaudio_core.kernels import graphs
from mmaudio_core.kernels.fastest import Fastest
from mmaudio_core.pipeline.device import choose_device


def test_a_cuda_device_always_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch before 2.5 does not say how much memory is free on "cuda" alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    for wish in (None, "auto", "cuda", torch.device("cuda")):
        assert choose_device(wish) == torch.device("cuda", 1)
    assert choose_device("cuda:0") == torch.device("cuda", 0)
    assert choose_device("cpu") == torch.device("cpu")


SECOND = torch.device("cuda", 1)


class Machine:
    """Stands for torch.cuda with two devices: events, streams and graphs belong to the one that is current."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.used = 0, list[Any]()
        for name in ("device", "Event", "Stream", "CUDAGraph", "graph", "stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: self.now)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.Stream(device))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: self.used.append(self.now))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 0)

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.now = self.now, device.index
        try:
            yield
        finally:
            self.now = before

    def Event(self, enable_timing: bool) -> Any:
        machine = self

        class Event:
            def record(self) -> None:
                machine.used.append(machine.now)

            def synchronize(self) -> None: ...

            def elapsed_time(self, other: Any) -> float:
                return 1.0

        return Event()

    def Stream(self, device: Any) -> Any:
        class Stream:
            index = getattr(device, "index", device)

            def wait_stream(self, other: Any) -> None: ...

        return Stream()

    def CUDAGraph(self) -> Any:
        class Graph:
            def replay(self) -> None: ...

        return Graph()

    @contextmanager
    def graph(self, graph: Any, stream: Any, capture_error_mode: str = "") -> Iterator[None]:
        self.used += [self.now, stream.index]
        yield

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.used.append(stream.index)
        yield


def test_a_second_device_is_timed_and_captured_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    assert Fastest("Test")(1, {"one": lambda: None}, SECOND) == "one"
    measure(lambda: None, SECOND, 0.1, first_s=0.1)
    time_in_graph_ms(lambda: None, SECOND)
    with torch.cuda.device(SECOND):
        graphs._stream.cache_clear()
        graphs._capture(lambda: torch.zeros(1))
        graphs._stream.cache_clear()
    assert set(machine.used) == {1}
    assert machine.now == 0
    seen = []
    run = graphs.Graphed(lambda x: seen.append(machine.now) or x, lambda function: pytest.fail("captured"))
    run(torch.zeros(1))
    assert seen == [0], "a CPU's work is not touched"

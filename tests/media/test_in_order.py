"""Jobs on threads, results in order."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from mmaudio_core.media import in_order as module
from mmaudio_core.media.in_order import InOrder, default_workers, usable_cpus


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("mmaudio-frames")]


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_results_come_in_order_and_in_the_callers_thread(workers: int) -> None:
    kept: list[tuple[int, int]] = []

    def job(k: int) -> int:
        time.sleep(0.004 if k % 5 == 0 else 0.0)
        return k

    with InOrder(lambda k: kept.append((k, threading.get_ident())), workers) as jobs:
        for k in range(40):
            jobs.submit(lambda k=k: job(k))  # type: ignore[misc]
        jobs.drain()
        assert kept == [(k, threading.get_ident()) for k in range(40)]
        jobs.submit(lambda: 40)
        jobs.drain()
    assert kept[-1][0] == 40
    assert not ours()


@pytest.mark.parametrize("workers", [1, 3])
def test_few_jobs_are_open_at_a_time(workers: int) -> None:
    lock = threading.Lock()
    submitted = delivered = most_open = running = most_running = 0

    def job() -> None:
        nonlocal running, most_running
        with lock:
            running += 1
            most_running = max(most_running, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    def deliver(_: None) -> None:
        nonlocal delivered
        delivered += 1

    with InOrder(deliver, workers) as jobs:
        for _ in range(30):
            jobs.submit(job)
            submitted += 1
            most_open = max(most_open, submitted - delivered)
        jobs.drain()
    assert most_running == workers
    assert most_open <= 2 * workers
    assert delivered == 30


def test_what_is_ready_is_delivered_before_the_limit() -> None:
    kept: list[int] = []
    ended = threading.Event()
    with InOrder(kept.append, 4) as jobs:
        jobs.submit(lambda: (1, ended.set())[0])
        assert ended.wait(10)
        for _ in range(5):  # below the limit of 8
            time.sleep(0.05)
            jobs.submit(lambda: 2)
        assert kept[0] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_where_the_result_would(workers: int) -> None:
    kept: list[int] = []

    def fail() -> int:
        raise KeyError("bad frame")

    def run() -> None:
        with InOrder(kept.append, workers) as jobs:
            for job in (lambda: 1, lambda: 2, fail, lambda: 4):
                jobs.submit(job)
            jobs.drain()

    with pytest.raises(KeyError, match="bad frame"):
        run()
    assert kept == [1, 2]
    assert not ours()


def test_leaving_early_waits_for_running_jobs_and_drops_the_others() -> None:
    started: list[int] = []
    ended: list[int] = []
    first = threading.Event()

    def job(k: int) -> int:
        started.append(k)
        first.set()
        time.sleep(0.05)
        ended.append(k)
        return k

    def run() -> None:
        with InOrder(lambda k: None, 1) as jobs:
            jobs.submit(lambda: job(0))
            jobs.submit(lambda: job(1))
            assert first.wait(10)
            raise InterruptedError("stop")

    with pytest.raises(InterruptedError, match="stop"):
        run()
    assert started == ended == [0]
    assert not ours()


@pytest.mark.parametrize(
    ("cpus", "capability", "workers"),
    [
        (1, "AVX2", 0),
        (2, "AVX2", 2),
        (3, "AVX512", 3),
        (64, "AVX512", 6),
        (8, "DEFAULT", 1),
        (8, "NO AVX", 1),
        (1, "DEFAULT", 0),
    ],
)
def test_workers_by_processors(cpus: int, capability: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability, raising=False)
    assert default_workers() == workers


def test_processors_that_may_be_used() -> None:
    assert usable_cpus() >= 1

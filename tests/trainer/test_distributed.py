"""Ranks under torchrun: as many as there are, they train the same network; resumed, killed and stopped ones too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.errors import InputError
from trainer.engine import checkpoint
from trainer.engine.distributed import PeerError, Ranks, any_rank, clip_gradients, gathered, mean_over_ranks, started, wrap

from .helpers_ranks import NEEDS_GLOO, ONE, ROOT, command, environment, furthest, launch, results
from .rank_worker import Job, run

STEPS = 20
DDP, FSDP, DDP_AGAIN, FSDP_AGAIN, FSDP_OF_DDP, PIECES, STOPPED, MIXED = range(8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    """Everything that two ranks do in one start of torchrun."""
    ddp, fsdp, at = str(folder / "ddp"), str(folder / "fsdp"), "step-00000010"
    jobs: list[dict[str, Any]] = [{}] * 8
    jobs[DDP] = {"folder": ddp, "save_every": 10}
    jobs[FSDP] = {"mode": "fsdp", "folder": fsdp, "save_every": 10, "steps": 12}
    jobs[DDP_AGAIN] = {"resume": f"{ddp}/{at}"}
    jobs[FSDP_AGAIN] = {"mode": "fsdp", "resume": f"{fsdp}/{at}", "steps": 12}
    jobs[FSDP_OF_DDP] = {"mode": "fsdp", "resume": f"{ddp}/{at}", "steps": 12}
    jobs[PIECES] = {"accumulation": 2, "steps": 5}
    jobs[STOPPED] = {"folder": str(folder / "stopped"), "signal_at": 4, "bad_batches": str(folder / "bad.jsonl")}
    jobs[MIXED] = {"mode": "fsdp", "mixed": "bfloat16", "steps": 2}
    return results(2, jobs, folder)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return run(Job(), ONE)


@NEEDS_GLOO
def test_two_ranks_with_half_the_batch_are_one(two: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert len(alone["losses"]) == STEPS
    assert alone["losses"][-1] < 0.95 * alone["losses"][0]  # it does learn something
    assert furthest(two[DDP]["losses"], alone["losses"]) < 1e-5
    assert furthest(two[DDP]["norms"], alone["norms"]) < 1e-5
    assert furthest(two[PIECES]["losses"], alone["losses"][:5]) < 1e-5


@NEEDS_GLOO
def test_shards_are_copies(two: list[dict[str, Any]]) -> None:
    """FSDP2 against DDP, the norms of clipped gradients (shards against whole ones) and the averages among them."""
    assert furthest(two[FSDP]["losses"], two[DDP]["losses"][:12]) < 1e-4
    assert furthest(two[FSDP]["norms"], two[DDP]["norms"][:12]) < 1e-4
    assert min(two[DDP]["norms"]) > 0.5  # clipping did clip
    for key, value in two[FSDP_OF_DDP]["sums"].items():  # this one began as copies
        assert two[FSDP]["sums"][key] == pytest.approx(value, rel=1e-5)


@NEEDS_GLOO
def test_resumed_runs_go_on_bit_for_bit(two: list[dict[str, Any]]) -> None:
    for resumed, unbroken in ((DDP_AGAIN, DDP), (FSDP_AGAIN, FSDP)):
        assert two[resumed]["losses"] == two[unbroken]["losses"][10:]
        assert two[resumed]["sums"] == two[unbroken]["sums"]
    assert furthest(two[FSDP_OF_DDP]["losses"], two[DDP]["losses"][10:12]) < 1e-5


@NEEDS_GLOO
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_a_checkpoint_of_two_ranks_resumes_on_one(two: list[dict[str, Any]], folder: Path, mode: str) -> None:
    resumed = run(Job(resume=str(folder / mode / "step-00000010")), ONE)
    assert furthest(resumed["losses"], two[DDP]["losses"][10:]) < 1e-5


@NEEDS_GLOO
def test_one_rank_that_is_asked_stops_all_after_saving(two: list[dict[str, Any]], folder: Path) -> None:
    assert two[STOPPED]["stopped"] == 5
    assert two[STOPPED]["losses"] == two[DDP]["losses"][:5]
    assert checkpoint.latest(folder / "stopped") == folder / "stopped" / "step-00000005"


@NEEDS_GLOO
def test_a_step_that_is_bad_on_one_rank_is_bad_on_all(two: list[dict[str, Any]], folder: Path) -> None:
    (line,) = [json.loads(line) for line in (folder / "bad.jsonl").read_text().splitlines()]
    assert line["ids"] == ["clip 0", "clip 1"]
    assert line["losses"] == [1.0, "nan"]
    assert line["reason"] == "the loss is nan"


@NEEDS_GLOO
def test_statistics_stay_whole_and_in_float32_between_bfloat16_shards(two: list[dict[str, Any]]) -> None:
    assert two[MIXED]["statistics"] == ["torch.float32", 1 + 2**-12]
    assert furthest(two[MIXED]["losses"], two[DDP]["losses"][:2]) < 0.05


@NEEDS_GLOO
@pytest.mark.slow
def test_four_ranks(two: list[dict[str, Any]], folder: Path, tmp_path: Path) -> None:
    """From checkpoints of two; and sums over more than two ranks are rounded in the same order after a resume."""
    jobs = [
        {"resume": str(folder / "ddp" / "step-00000010")},
        {"mode": "fsdp", "resume": str(folder / "fsdp" / "step-00000010")},
        {"folder": str(tmp_path), "save_every": 3, "steps": 6},
        {"resume": str(tmp_path / "step-00000003"), "steps": 6},
    ]
    from_ddp, from_fsdp, unbroken, resumed = results(4, jobs, tmp_path)
    assert furthest(from_ddp["losses"], two[DDP]["losses"][10:]) < 1e-5
    assert furthest(from_fsdp["losses"], two[DDP]["losses"][10:]) < 1e-5
    assert resumed["losses"] == unbroken["losses"][3:]
    assert resumed["sums"] == unbroken["sums"]


@NEEDS_GLOO
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_rank_ends_the_run_and_leaves_its_last_checkpoint(two: list[dict[str, Any]], tmp_path: Path) -> None:
    ended = launch(2, [{"folder": str(tmp_path / "run"), "save_every": 5, "kill": [1, 17]}], tmp_path)
    assert ended.returncode != 0
    assert "worker: Rank 0 of 2 lost another process of this run" in ended.stderr
    assert "Traceback" not in ended.stderr.split("worker:")[0]
    last = checkpoint.latest(tmp_path / "run")
    assert last == tmp_path / "run" / "step-00000015"
    resumed = results(2, [{"resume": str(last)}], tmp_path)[0]
    assert resumed["losses"] == two[DDP]["losses"][15:]
    assert resumed["sums"] == two[DDP]["sums"]


@NEEDS_GLOO
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="torchrun cannot be sent SIGTERM on Windows")
def test_torchrun_passes_on_a_schedulers_sigterm(tmp_path: Path) -> None:
    job = {"folder": str(tmp_path / "run"), "save_every": 5, "steps": 100_000}
    process = subprocess.Popen(command(2, [job], tmp_path), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while checkpoint.latest(tmp_path / "run") is None and time.monotonic() < until:
            time.sleep(0.2)
        before = checkpoint.checkpoints(tmp_path / "run")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    last = checkpoint.latest(tmp_path / "run")
    assert before, said
    assert last is not None
    stopped = json.loads((tmp_path / "JOBS.json.out").read_text())["results"][0]["stopped"]  # it ended in order
    assert checkpoint.read_extra(last)["step"] == checkpoint.step_of(last) == stopped >= checkpoint.step_of(before[-1])
    assert not list((tmp_path / "run").glob(".*"))  # nothing half-written


def test_alone_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with started("cpu") as ranks:
        assert ranks == ONE
        assert ranks.first
        assert not torch.distributed.is_initialized()
        layer = torch.nn.Linear(2, 2)
        assert wrap(layer, ranks) is layer
        assert any_rank(True, ranks)
        assert gathered("a", ranks) == ["a"]
        value = torch.tensor(3.0)
        assert mean_over_ranks(value, ranks).item() == 3
        assert mean_over_ranks(value, ranks) is not value


def test_errors_of_a_lost_peer_are_told_apart_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(message: str) -> None:
        with started("cpu"):
            raise RuntimeError(message)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    with pytest.raises(PeerError, match=r"lost another process.*last checkpoint is whole"):
        fail("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fail("mat1 and mat2 shapes cannot be multiplied")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(RuntimeError, match="closed by peer"):
        fail("Connection closed by peer")  # not of ours: there is no peer


def test_each_rank_takes_a_gpu_of_its_own_and_more_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(
        "trainer.engine.distributed.choose_device", lambda wish: torch.device(wish if wish == "cuda:1" else "cuda:0")
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="2 GPUs"), started("cuda"):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    for wish, index in ((None, 2), ("cuda", 2), ("cuda:1", 1)):
        with started(wish) as ranks:
            assert ranks.device == torch.device("cuda", index)


def test_clipping_returns_the_norm_before() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([weight], 1.0).item() == pytest.approx(5)
    assert weight.grad.norm().item() == pytest.approx(1, rel=1e-5)
    weight.grad = torch.tensor([torch.nan, 4.0])
    assert clip_gradients([weight], 1.0).isnan()


@NEEDS_GLOO
def test_one_rank_alone_can_be_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with started("cpu") as ranks:
        assert isinstance(ranks, Ranks)
        sharded = run(Job(mode="fsdp", steps=3), ranks)
    assert furthest(sharded["losses"], run(Job(steps=3), ONE)["losses"]) < 1e-6
    assert not torch.distributed.is_initialized()

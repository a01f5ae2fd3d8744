"""Checkpoints: whole under their names or not there, and refused with a reason where they do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from mmaudio_core.errors import WeightsError
from trainer.ema.power import PowerEMA
from trainer.engine import checkpoint
from trainer.engine.optimizers import settings_kept

from .helpers_ranks import ONE


class Run:
    """A small network, its optimiser and averages, and steps that depend on their number alone."""

    def __init__(self, width: int = 4, widths: tuple[float, ...] = (0.05, 0.1), **settings: Any) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.SiLU(), torch.nn.Linear(width, 1))
        self.optimizer = torch.optim.AdamW(self.module.parameters(), **{"lr": 1e-2, **settings})
        self.ema = PowerEMA(dict(self.module.named_parameters()), widths)

    def train(self, first: int, last: int) -> list[float]:
        losses = []
        for step in range(first, last):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            loss = (self.module(x) - x.sum(1, keepdim=True)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.ema.update(step + 1)
            losses.append(loss.item())
        return losses

    def save(self, folder: Path, step: int, keep: int = 3) -> Path:
        return checkpoint.save(folder, step, self.module, self.optimizer, self.ema, {"step": step}, ONE, keep)

    def load(self, folder: Path) -> dict[str, object]:
        return checkpoint.load(folder, self.module, self.optimizer, self.ema, ONE)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    unbroken = Run()
    losses = unbroken.train(0, 12)
    broken = Run()
    broken.train(0, 5)
    path = broken.save(tmp_path, 5)
    resumed = Run()
    assert resumed.load(path) == {"step": 5}
    assert resumed.train(5, 12) == losses[5:]
    for width in (0.05, 0.1):
        for name, tensor in unbroken.ema.tensors(width).items():
            assert torch.equal(tensor, resumed.ema.tensors(width)[name])


def test_a_resumed_run_has_the_optimisers_settings_of_now(tmp_path: Path) -> None:
    begun = Run()
    begun.train(0, 3)
    path = begun.save(tmp_path, 3)
    now: dict[str, Any] = {"lr": 1e-3, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.3, "foreach": True}
    resumed = Run(**now)
    resumed.load(path)
    (group,) = resumed.optimizer.param_groups
    assert {name: group[name] for name in now} == now
    assert resumed.train(3, 6) != begun.train(3, 6)
    states = zip(begun.optimizer.state.values(), resumed.optimizer.state.values(), strict=True)
    assert all(float(one["step"]) == float(other["step"]) == 6 for one, other in states)


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [None, True])
def test_counters_lie_where_the_kernel_wants_them(fused: bool | None) -> None:
    module = torch.nn.Linear(3, 4, device="cuda")
    module(torch.ones(2, 3, device="cuda")).sum().backward()
    begun, now = (torch.optim.AdamW(module.parameters(), fused=choice) for choice in (not fused, fused))
    begun.step()
    with settings_kept(now):
        now.load_state_dict(begun.state_dict())
    assert {state["step"].device.type for state in now.state.values()} == {"cuda" if fused else "cpu"}
    now.step()


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    run = Run()
    for step in range(1, 6):
        run.train(step - 1, step)
        run.save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000004", "step-00000005"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000005"
    run.save(tmp_path, 6, keep=0)
    assert len(names(tmp_path)) == 3


def test_one_that_was_just_written_is_kept_even_as_the_oldest(tmp_path: Path) -> None:
    run = Run()
    run.train(0, 1)
    for step in (8, 9, 3):
        run.save(tmp_path, step, keep=2)
    assert "step-00000003" in names(tmp_path)


def test_writing_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    run = Run()
    run.train(0, 2)
    run.save(tmp_path, 2)
    weight = run.module[0].weight.detach().clone()
    run.train(2, 4)
    run.save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000002"]
    again = Run()
    again.load(tmp_path / "step-00000002")
    assert torch.equal(again.module[0].weight, run.module[0].weight)
    assert not torch.equal(again.module[0].weight, weight)


def test_what_killed_runs_left_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    run = Run()
    run.train(0, 2)
    run.save(tmp_path, 2)
    run.save(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000004.partial")
    (tmp_path / ".step-00000004.partial" / "extra.json").unlink()
    # Killed between the two renames that replace a checkpoint.
    (tmp_path / "step-00000001").rename(tmp_path / ".step-00000001.old")
    (tmp_path / "step-00000009").mkdir()  # not ours, or emptied by hand
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000002"
    checkpoint.clean(tmp_path, ONE)
    assert names(tmp_path) == ["step-00000001", "step-00000002", "step-00000009"]
    Run().load(tmp_path / "step-00000001")
    assert checkpoint.latest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("broken", ["the tensors", "the rest"])
def test_a_failed_write_leaves_the_ones_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    run = Run()
    run.train(0, 2)
    run.save(tmp_path, 1)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    if broken == "the tensors":
        monkeypatch.setattr(dcp.FileSystemWriter, "write_data", full)
    else:
        monkeypatch.setattr(checkpoint, "_write_whole", full)
    with pytest.raises(WeightsError, match=r"step 2 could not be written.*No space left"):
        run.save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001"]


def test_one_of_another_model_is_refused(tmp_path: Path) -> None:
    run = Run()
    run.train(0, 1)
    path = run.save(tmp_path, 1)
    with pytest.raises(WeightsError, match="does not fit this run"):
        Run(width=5).load(path)
    with pytest.raises(WeightsError, match="does not fit this run"):
        Run(widths=(0.07,)).load(path)
    (path / "extra.json").unlink()
    with pytest.raises(WeightsError, match="no whole checkpoint"):
        Run().load(path)


def test_tensors_are_read_without_the_run(tmp_path: Path) -> None:
    run = Run()
    run.train(0, 3)
    path = run.save(tmp_path, 3)
    model = checkpoint.read_tensors(path, "model.")
    assert model.keys() == run.module.state_dict().keys()
    assert torch.equal(model["0.weight"], run.module[0].weight)
    averages = checkpoint.read_tensors(path, "ema.0.05.")
    assert torch.equal(averages["2.bias"], run.ema.tensors(0.05)["2.bias"])
    assert "ema.0.1.0.weight" in checkpoint.tensor_names(path)
    with pytest.raises(WeightsError, match="damaged"):
        checkpoint.read_tensors(tmp_path, "model.")
    with pytest.raises(WeightsError, match="not the folder of a checkpoint"):
        checkpoint.step_of(tmp_path)

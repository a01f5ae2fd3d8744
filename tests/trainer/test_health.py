"""Bad steps: skipped or the end, by rule, with the ids of their batch on record."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mmaudio_core.errors import InputError
from trainer.engine.health import Health, HealthRule, UnhealthyError

from .helpers_ranks import ONE


def health(tmp_path: Path, **values: Any) -> Health:
    return Health(HealthRule(**values), tmp_path / "run" / "bad_batches.jsonl", ONE)


def record(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "run" / "bad_batches.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("loss", "norm", "reason"),
    [
        (math.nan, 1.0, "loss is nan"),
        (math.inf, 1.0, "loss is inf"),
        (1.0, math.nan, "norm is nan"),
        (1.0, 99.0, "limit of 50"),
    ],
)
def test_a_bad_step_is_skipped_and_recorded(tmp_path: Path, loss: float, norm: float, reason: str) -> None:
    judge = health(tmp_path, max_gradient_norm=50)
    assert judge.check(1, 1.0, 2.0, ["a", "b"])
    assert not judge.check(2, loss, norm, ["c", "d"], [0.5, loss])
    assert judge.check(3, 1.0, 2.0, ["e", "f"])
    (line,) = record(tmp_path)
    assert reason in line["reason"]
    assert (line["step"], line["action"], line["ids"]) == (2, "skip", ["c", "d"])
    assert line["losses"] == [0.5, loss if math.isfinite(loss) else str(loss)]
    assert judge.skipped == 1


def test_a_loss_far_above_the_median_is_bad_once_there_is_a_history(tmp_path: Path) -> None:
    judge = health(tmp_path, max_loss_factor=5, min_history=4, window=4)
    for step, loss in enumerate((1.0, 100.0, 1.2, 0.8)):  # the second one comes before anything is usual
        assert judge.check(step, loss, 1.0, ["a"])
    assert not judge.check(4, 5.6, 1.0, ["b"])  # the median of the four is 1.1
    assert judge.check(5, 5.4, 1.0, ["a"])
    for step in range(6, 20):
        assert judge.check(step, 3.0, 1.0, ["a"])  # slowly, the usual may change
    assert judge.check(20, 14.0, 1.0, ["a"])


def test_stop_ends_at_once_and_skip_after_too_many_in_a_row(tmp_path: Path) -> None:
    with pytest.raises(UnhealthyError, match=r"Step 7 was not taken: the loss is nan.*bad_batches"):
        health(tmp_path, on_bad="stop").check(7, math.nan, 1.0, ["a"])
    judge = health(tmp_path, max_consecutive_skips=2)
    for step in (1, 2):
        assert not judge.check(step, math.nan, 1.0, ["a"])
    assert judge.check(3, 1.0, 1.0, ["a"])
    for step in (4, 5):
        assert not judge.check(step, math.nan, 1.0, ["a"])
    with pytest.raises(UnhealthyError, match="3 steps in a row"):
        judge.check(6, math.nan, 1.0, ["a"])
    assert [line["action"] for line in record(tmp_path)] == ["stop", "skip", "skip", "skip", "skip", "stop"]


def test_a_resumed_run_judges_as_before(tmp_path: Path) -> None:
    first, second = (health(tmp_path, min_history=3, max_consecutive_skips=1) for _ in range(2))
    for step in range(3):
        first.check(step, 1.0, 1.0, ["a"])
    assert not first.check(3, 11.0, 1.0, ["a"])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.skipped == 1
    with pytest.raises(UnhealthyError):
        second.check(4, 11.0, 1.0, ["a"])


@pytest.mark.parametrize(
    "values", [{"on_bad": "ignore"}, {"max_loss_factor": 0.5}, {"max_gradient_norm": -1}, {"min_history": 0}]
)
def test_impossible_rules_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        HealthRule(**values)

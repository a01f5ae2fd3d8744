"""``mmaudio bench`` whole, on the embedded model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.bench import run as bench_run
from mmaudio_core.bench.made_up import make_part, variant_specs
from mmaudio_core.bench.rows import Ceilings, Row, table
from mmaudio_core.bench.run import Wanted, relative_error, run
from mmaudio_core.bench.stages import STAGES
from mmaudio_core.bench.timing import Timing
from mmaudio_core.cli import main
from mmaudio_core.errors import InputError

KEYS = ["variant", "stage", "backend", "device", "dtype", "duration_s", "median_s", "spread_s", "peak_bytes", "error_rel"]


def test_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    names = "--variants tiny --backends plain,auto --device cpu --dtype float32 --duration 1 --seconds-per-row 0.02"
    assert main(["bench", *names.split(), "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(file.read_text())
    assert [list(row) for row in rows] == [KEYS] * len(rows)
    assert {(r["stage"], r["backend"]) for r in rows} == {(s, b) for s in STAGES for b in ("plain", "auto")}
    for row in rows:
        assert row["variant"] == "tiny"
        assert row["duration_s"] == 1.0
        assert row["median_s"] > 0
        assert row["spread_s"] >= 0
        assert row["peak_bytes"] > 0
        # Euler steps of an untrained network are no place for tight bounds.
        assert row["error_rel"] < (1e-3 if row["stage"] in ("total", "text_only") else 2e-5), row
        assert row["backend"] != "plain" or row["error_rel"] == 0, "the plain path in float32 is the reference itself"
    for word in ("Measured ceilings", "TFLOP/s", "sdpa-math", "text_only"):
        assert word in out
    assert "tiny step auto" in err
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_had_is_said_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    rows: list[Row] = []
    wanted = Wanted(("tiny",), ("step",), ("cuda", "torch"), torch.device("cpu"), torch.float32, 1.0, 0.01)
    (said,) = run(wanted, rows.append)
    assert said.startswith("tiny, cuda: The kernels 'cuda' cannot run here")
    assert [r.backend for r in rows] == ["torch"]


def test_no_row_begins_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(bench_run, "measure", lambda *_: Timing(1.0, 0.0, 1))
    rows: list[Row] = []
    wanted = Wanted(("tiny",), ("step", "vae"), ("plain", "torch"), torch.device("cpu"), torch.float32, 1.0, limit_s=4)
    said = run(wanted, rows.append, clock=lambda: float(next(now)))
    assert len(rows) + len(said) == 4
    assert said
    assert all("no time was left" in sentence for sentence in said)


@pytest.mark.parametrize("what", ["variants", "stages", "backends"])
def test_unknown_names_are_refused(what: str, caplog: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.ERROR):
        assert main(["bench", f"--{what}", "nonsense", "--device", "cpu"]) == 2
    assert "nonsense" in capsys.readouterr().err
    with pytest.raises(InputError, match="nonsense"):
        Wanted(("tiny",), ("step",), ("nonsense",), torch.device("cpu"), torch.float32)


def test_table_tells_ratios_and_shares() -> None:
    def row(backend: str, seconds: float) -> Row:
        return Row("v", "step", backend, "cpu", "float32", 8.0, seconds, 0.0, 1_000_000, 1e-6, flops=2e12)

    lines = table([row("plain", 2.0), row("auto", 0.5)], Ceilings("float32", 8e12, 1e9)).splitlines()
    assert lines[1].split()[3:] == ["2000.00", "0.00", "1.00", "1", "1.0e-06", "1.00", "12"]
    assert lines[2].split()[3:] == ["500.00", "0.00", "4.00", "1", "1.0e-06", "4.00", "50"]


def test_made_up_weights_are_the_same_in_every_dtype() -> None:
    one, other = (make_part("small_16k", "flow", torch.device("cpu"), dtype) for dtype in (torch.float32, torch.bfloat16))
    for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a.to(torch.bfloat16), b), name
    with pytest.raises(InputError, match="no variant"):
        variant_specs("huge")


def test_errors_see_what_is_not_a_number() -> None:
    assert relative_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])) == 0
    assert relative_error(torch.tensor([float("nan")]), torch.tensor([1.0])) != relative_error(torch.ones(1), torch.ones(1))

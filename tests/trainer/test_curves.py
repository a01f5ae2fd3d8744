"""``mmaudio-train curves`` and ``figures``: every setting once, and pictures of what was measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mmaudio_core.errors import InputError
from mmaudio_core.pipeline.sample import SampleSettings
from trainer.cli import main
from trainer.cli.figures import read_rows
from trainer.prove import curves as module
from trainer.prove.ablations import MEASURES as ABLATION_MEASURES
from trainer.prove.curves import ADAPTIVE_TOLERANCE, GUIDANCE, SOLVERS, STEPS, Point, curves, points
from trainer.prove.figures import MEASURES, ablations_figure, curves_figure


def test_each_curve_changes_one_thing() -> None:
    wanted = points(3.0)
    assert [p.settings.cfg_strength for p in wanted if p.curve == "guidance"] == list(GUIDANCE)
    steps = [p.settings for p in wanted if p.curve == "steps"]
    assert [s.steps for s in steps] == list(STEPS)
    assert {(s.cfg_strength, s.solver) for s in steps} == {(3.0, "euler")}
    solvers = [p.settings for p in wanted if p.curve == "solver"]
    assert [(s.solver, s.steps) for s in solvers] == list(SOLVERS)
    assert [s.tolerance for s in solvers] == [1e-7, 1e-7, ADAPTIVE_TOLERANCE]


def test_the_same_settings_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SampleSettings] = []

    def score(model: Any, tripper: Any, classifier: Any, wishes: Any, progress: Any) -> dict[str, dict[str, float]]:
        asked.append(wishes.settings)
        assert (wishes.clips, wishes.seed, wishes.lines) == (5, 2, ("model",))
        progress(5, 5)
        return {"model": {"onset_f1": float(wishes.settings.steps)}}

    monkeypatch.setattr(module, "score", score)
    seen: list[tuple[int, int]] = []
    usual, long = SampleSettings(), SampleSettings(steps=50)
    wanted = (Point("guidance", usual), Point("steps", usual), Point("steps", long))
    model: Any = None
    rows = curves(model, model, wanted, 5, 2, lambda done, total: seen.append((done, total)))
    assert asked == [usual, long]
    assert [(row["curve"], row["steps"], row["onset_f1"]) for row in rows] == [
        ("guidance", 25, 25.0),
        ("steps", 25, 25.0),
        ("steps", 50, 50.0),
    ]
    assert seen[-1] == (15, 15)


def made_up_rows() -> list[dict[str, Any]]:
    rows = []
    for point in points():
        s = point.settings
        measured = {measure: 0.1 * k + 0.02 * s.cfg_strength for k, (measure, _) in enumerate(MEASURES)}
        rows.append({"curve": point.curve, **asdict(s), **measured})
    return rows


def test_a_picture_of_curves(tmp_path: Path) -> None:
    path = curves_figure(made_up_rows(), tmp_path / "curves.png")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    other = [row | {"material_accuracy": 0.9} for row in made_up_rows()]
    assert curves_figure(other, tmp_path / "other.png").read_bytes() != data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "other.png"]


def test_a_curve_that_is_missing_is_named(tmp_path: Path) -> None:
    rows = [row for row in made_up_rows() if row["curve"] != "steps"]
    with pytest.raises(InputError, match="The curve 'steps' with steps, onset_f1_50ms"):
        curves_figure(rows, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": 3}'])
def test_files_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    for command, kind in (("curves", list), ("ablate", dict)):
        with pytest.raises(InputError, match=rf"no file of that kind.*mmaudio-train {command} --json"):
            read_rows(path, command, kind)  # type: ignore[type-var]
    assert main(["figures", "-o", str(tmp_path / "out"), "--curves", str(path)]) == 2
    assert main(["figures", "-o", str(tmp_path / "out"), "--ablations", str(path)]) == 2
    assert not (tmp_path / "out").exists()


def test_a_picture_of_ablations(tmp_path: Path) -> None:
    rows = {
        name: [dict.fromkeys(ABLATION_MEASURES, value + seed / 10) for seed in range(3)]
        for name, value in (("full", 0.6), ("no sync", 0.1))
    }
    data = ablations_figure(rows, tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert ablations_figure({"full": rows["full"]}, tmp_path / "b.png").read_bytes() != data
    for wrong in ({}, {"full": []}, {"full": [{"kl": 1.0}]}):
        with pytest.raises(InputError, match=r"No numbers for .*mmaudio-train ablate --json"):
            ablations_figure(wrong, tmp_path / "c.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_figures_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "curves.json"
    rows.write_text(json.dumps({"rows": made_up_rows()}), encoding="utf-8")
    ablations = tmp_path / "ablations.json"
    ablations.write_text(json.dumps({"rows": {"full": [dict.fromkeys(ABLATION_MEASURES, 0.5)]}}), encoding="utf-8")
    words = ["--curves", str(rows), "--ablations", str(ablations), "--device", "cpu"]
    assert main(["figures", "-o", str(tmp_path / "out"), *words]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["ablations.png", "clip.png", "curves.png"]
    assert "clip.png" in capsys.readouterr().out

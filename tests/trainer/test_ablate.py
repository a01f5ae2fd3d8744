"""``mmaudio-train ablate``: every row is a configuration of its own that differs in what it says, and the table is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmaudio_core.errors import InputError
from trainer.cli import main
from trainer.config.load import load_run_config
from trainer.prove.ablations import FOLDER, MEASURES, ROWS, cell, collected, markdown, stages_of_rows


def test_every_row_is_a_run_that_can_be_configured() -> None:
    configs = {}
    for row in ROWS:
        run, export, score = stages_of_rows([row], [3], 1000, 8, 50)
        changes = [word for word in run.command[2:] if word != "--set"]
        config = load_run_config("world", changes)
        assert (config.train.seed, config.train.steps) == (3, 1000)
        assert export.after == (run.name,)
        assert score.after == (export.name,)
        assert config.train.folder in export.command
        configs[row] = (config.model.sizes, config.model.empty, config.data)
    assert len({repr(value) for value in configs.values()}) == len(ROWS), "no two rows are the same"
    total = {row: sizes.joint_blocks + sizes.audio_blocks for row, (sizes, _, _) in configs.items()}
    assert set(total.values()) == {4}


def test_one_score_trains_the_classifier_and_the_others_wait_for_it() -> None:
    stages = stages_of_rows(["no RoPE", "full"], [1, 0], 1000, 8, 50)
    scores = [stage for stage in stages if "score" in stage.command[:1]]
    assert len(scores) == 4
    first = scores[0].name
    assert [first in score.after for score in scores] == [False, True, True, True]


def test_cells_have_names_of_their_own() -> None:
    names = {cell(row, seed) for row in ROWS for seed in range(3)}
    assert len(names) == 3 * len(ROWS)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for name in names)


def scored(folder: Path, row: str, seed: int, value: float) -> None:
    path = folder / FOLDER / cell(row, seed) / "score.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"model": dict.fromkeys(MEASURES, value)}), encoding="utf-8")


def test_the_table_has_means_and_spreads(tmp_path: Path) -> None:
    for seed, value in enumerate((0.2, 0.6)):
        scored(tmp_path, "full", seed, value)
        scored(tmp_path, "no RoPE", seed, 100 * value)
    lines = markdown(collected(tmp_path, ["full", "no RoPE"], [0, 1])).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == len(MEASURES) + 2
    assert lines[2].startswith("| full | 0.400 (0.200-0.600) |")
    assert lines[3].startswith("| no RoPE | 40.0 (20.0-60.0) |")
    assert "(" not in markdown(collected(tmp_path, ["full"], [0]))


def test_a_score_that_is_missing_is_named(tmp_path: Path) -> None:
    scored(tmp_path, "full", 0, 0.5)
    with pytest.raises(InputError, match=r"full-1.*holds no score"):
        collected(tmp_path, ["full"], [0, 1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "half"], "The row 'half' is unknown; known are full, no sync"),
        (["--steps", "0"], "0 steps"),
        (["--workers", "0"], "0 workers"),
        ([], "has no encoders.safetensors; make it with: mmaudio-train prove"),
    ],
)
def test_refusals(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""The recipe: its order, its memory, its errors; and the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaudio_core.errors import InputError
from mmaudio_core.pipeline.files import EMBEDDED_FILE
from mmaudio_core.weights.parts import open_part
from trainer.cli import build_parser, main
from trainer.config.checks import spec_of
from trainer.config.load import load_run_config
from trainer.prove.picture import MARK, WIDTH, clip_picture, write_picture
from trainer.prove.run import StageError, run_stages
from trainer.prove.stages import SIZES, Stage, stages_of
from trainer.world import make_clip

WORLD = ("world", "w", "--clips", "1", "--workers", "1")
SCAN = ("scan", "w/clips", "-o", "again.tsv", "--captions", "none")


@pytest.mark.parametrize("size", sorted(SIZES))
def test_stages_come_after_what_they_need_and_are_commands(size: str) -> None:
    known: set[str] = set()
    for stage in stages_of(size, 3):
        assert set(stage.after) <= known
        assert build_parser().parse_args(list(stage.command)).command == stage.command[0]
        known.add(stage.name)
    assert {"world", "vae", "vocoder", "sync", "clip", "flow", "score"} <= known


def test_an_unknown_size() -> None:
    with pytest.raises(InputError, match="huge"):
        stages_of("huge", 0)


def test_done_stages_are_not_run_again(tmp_path: Path) -> None:
    stages = (Stage("world", WORLD), Stage("scan", SCAN, ("world",)))
    reports: list[tuple[int, int]] = []
    took = run_stages(stages, tmp_path, 2, lambda done, total: reports.append((done, total)))
    assert (tmp_path / "again.tsv").is_file()
    assert reports == [(1, 2), (2, 2)]
    assert list(took) == ["world", "scan"]
    (tmp_path / "again.tsv").unlink()
    again = run_stages(stages, tmp_path, 2)
    assert again.keys() == took.keys()
    assert not (tmp_path / "again.tsv").exists()


def test_a_stage_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"'scan' ended with exit code .*scan\.log"):
        run_stages((Stage("scan", SCAN),), tmp_path, 1)
    assert not (tmp_path / "stages" / "scan.json").exists()
    took = run_stages((Stage("world", WORLD), Stage("scan", SCAN, ("world",))), tmp_path, 1)
    assert set(took) == {"world", "scan"}


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "world.json").write_text(json.dumps({"command": ["world", "v"], "seconds": 1}))
    with pytest.raises(InputError, match="another recipe"):
        run_stages((Stage("world", WORLD),), tmp_path, 1)


def test_a_family_holds_the_parts_and_an_untrained_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "encoders.safetensors"
    assert main(["family", str(EMBEDDED_FILE), "-o", str(target), "--flow", "smoke_cpu"]) == 0
    for kind in ("vae", "vocoder", "synchformer", "clip"):
        found, given = open_part(target, kind), open_part(EMBEDDED_FILE, kind)
        assert found.detected.spec == given.detected.spec
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in given.tensors.items())
    flow = open_part(target, "flow")
    assert flow.detected.spec == spec_of(load_run_config("smoke_cpu").model)
    capsys.readouterr()
    assert main(["family", str(tmp_path / "none.pt"), "-o", str(tmp_path / "b.safetensors"), "--flow", "smoke_cpu"]) != 0
    assert "There is no file" in capsys.readouterr().err
    assert main(["family", str(EMBEDDED_FILE), "-o", str(tmp_path / "b.safetensors"), "--flow", "finetune"]) != 0
    assert "model.base" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()


def test_marks_stand_where_strikes_are(tmp_path: Path) -> None:
    clip = make_clip(3, scene="stick")
    picture = clip_picture(clip, [(clip.samples, clip.sample_rate_hz)])
    band = picture[WIDTH // 8]
    marked = np.flatnonzero((band == np.array(MARK)).all(-1)) / WIDTH * 8
    for event in clip.events:
        assert np.abs(marked - event.time_s).min() < 0.02
    # The loudest column of each second with a strike lies just after one.
    spectrogram = picture[WIDTH // 8 + 12 :].astype(float).sum((0, 2))
    first = clip.events[0].time_s
    columns = slice(round((first - 0.2) * WIDTH / 8), round((first + 0.1) * WIDTH / 8))
    rise = np.diff(spectrogram[columns]).argmax() + columns.start
    assert abs(rise / WIDTH * 8 - first) < 0.05
    assert write_picture(picture, tmp_path / "p.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_whole_recipe_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", str(tmp_path), "--size", "smoke", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert [line.rsplit(maxsplit=2)[0].strip() for line in told.splitlines()] == [s.name for s in stages_of("smoke", 0)]
    score = json.loads((tmp_path / "score.json").read_text())
    assert {"model", "truth", "round_trip", "silence", "shuffled"} <= score.keys()
    assert score["truth"]["onset_f1_50ms"] > 0.9
    assert (tmp_path / "family.safetensors").stat().st_size <= 30e6

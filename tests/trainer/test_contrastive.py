"""Training of CLIP and of Synchformer's visual tower: they learn, resume exactly, and their files are the core's."""

from __future__ import annotations

import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mmaudio_core.errors import InputError, MMAudioError
from mmaudio_core.features.clip import CLIPEncoder
from mmaudio_core.features.synchformer import SynchformerVisual
from mmaudio_core.media.video import read_video
from mmaudio_core.spec.model import CLIPSpec, SynchformerSpec
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.locate import find_parts
from mmaudio_core.weights.parts import open_raw_part
from trainer.cli import main
from trainer.contrastive import loop
from trainer.contrastive.audio import AudioTower
from trainer.contrastive.clip import ClipTask
from trainer.contrastive.clip_data import frames_at
from trainer.contrastive.config import ClipConfig, SyncConfig, load
from trainer.contrastive.step import update
from trainer.contrastive.sync import SyncTask
from trainer.contrastive.sync_data import FRAME_SAMPLES, MARGIN_SAMPLES, SEGMENT_SAMPLES, TOKEN_SAMPLES
from trainer.data.manifest import Row, write_manifest
from trainer.data.report import read_report

from .helpers_contrastive import COLOURS, CONFIGS, clip_config, sync_config, write_clips
from .helpers_f import log_of, lowered, tags

CPU = torch.device("cpu")
both = pytest.mark.parametrize("name", sorted(CONFIGS))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("flashes"))


@pytest.fixture(scope="module")
def runs(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of some tens of steps of both."""
    folder = tmp_path_factory.mktemp("runs")
    more = ("train.steps=40", "log.measure_every=20", "checkpoint.every=0", "train.licence=mine")
    for name, make in CONFIGS.items():
        assert loop.train(make(manifest, folder / name, *more), quiet=True) == 0
    return {name: folder / name for name in CONFIGS}


def test_clip_learns(runs: dict[str, Path]) -> None:
    assert lowered(log_of(runs["clip"], "loss/captions"), 0.7)
    assert lowered(log_of(runs["clip"], "loss/tokens"), 0.7)
    for name in ("caption", "picture", "caption_by_tokens"):
        assert log_of(runs["clip"], f"held_out/{name}")[40] >= 0.75
    assert log_of(runs["clip"], "held_out/chance")[40] == 0.25


def test_sync_learns(runs: dict[str, Path]) -> None:
    assert lowered(log_of(runs["sync"], "loss/segments"), 0.7)
    assert lowered(log_of(runs["sync"], "loss/tokens"), 0.7)
    measured = {name: log_of(runs["sync"], f"held_out/{name}")[40] for name in ("token", "token_chance", "offset_s", "segment")}
    assert measured["token"] > 4 * measured["token_chance"]
    assert measured["segment"] > 1.25 * log_of(runs["sync"], "held_out/segment_chance")[40]
    assert measured["offset_s"] < 0.08


@both
def test_bad_files_are_listed_and_curves_drawn(runs: dict[str, Path], name: str) -> None:
    assert {bad.id: bad.reason for bad in read_report(runs[name] / "bad.jsonl")} == {"damaged": "unreadable", "gone": "missing"}
    assert {"loss", "loss/tokens", "rate", "time/data_share"} <= set(tags(runs[name])["scalars"])


def test_the_core_finds_and_loads_clip(runs: dict[str, Path], manifest: Path) -> None:
    path = runs["clip"] / "clip.safetensors"
    found = {item.kind: item for item in find_parts([runs["clip"]]) if item.kind}
    assert list(found) == ["clip"]
    module, spec = load_part(found["clip"].path, "clip")
    assert spec == CLIPSpec(16, 32, 1, 32, 16, 16, text_width=16, text_heads=1, text_layers=1)
    values = open_raw_part(path).values
    assert (values["licence"], values["step"]) == ("mine", 40)
    task = ClipTask(load(ClipConfig, str(runs["clip"])), CPU)
    task.model.load_state_dict(load_file(path))
    assert isinstance(module, CLIPEncoder)
    items = task.rows("val", held_out=True).first(4, 0)
    frames = torch.cat([item.frames for item in items])
    with torch.no_grad():
        seen = F.normalize(task.model.visual(task._pixels(items).flatten(0, 1)), dim=-1)
        ends, means = task._read([item.caption for item in items])
    assert torch.allclose(module.encode_image(frames)[0], seen, atol=1e-5)
    tokens = module.encode_text([item.caption for item in items])
    assert tokens.shape == (4, 77, 16)
    own = 5  # begin, three words, end
    assert torch.allclose(tokens[:, :own].mean(1), means, atol=1e-5)
    assert not torch.allclose(tokens[0, 2], tokens[1, 2], atol=0.1)  # the word of the colour
    assert ends.shape == (4, 16)


def test_the_core_finds_and_loads_sync(runs: dict[str, Path], manifest: Path) -> None:
    found = {item.kind: item for item in find_parts([runs["sync"]]) if item.kind}
    assert list(found) == ["synchformer"]
    module, spec = load_part(found["synchformer"].path, "synchformer")
    assert spec == SynchformerSpec(32, 2, 1, 64, 16, 2)
    assert isinstance(module, SynchformerVisual)
    task = SyncTask(load(SyncConfig, str(runs["sync"])), CPU)
    task.model.load_state_dict(load_file(found["synchformer"].path))
    frames = read_video(manifest.parent / "17.mp4", 2.56, hold_last=True, clip_size=32, sync_size=spec.image_size).sync
    assert frames is not None
    item = task.rows("val", held_out=True).first(2, 0)[1]
    assert torch.equal(item.frames.flatten(0, 1), frames[:64])
    with torch.no_grad():
        seen, _ = task._features(task._batch([item]).frames[0], item.samples)
    encoded = module.encode(frames)[0].unflatten(0, (-1, 8))
    assert torch.allclose(encoded[::2], seen, atol=1e-5)
    assert load_file(runs["sync"] / "training_only.safetensors")["tower.embed.weight"].shape == (32, 80, 3)


@both
def test_resuming_is_exact(manifest: Path, tmp_path: Path, name: str) -> None:
    whole, parts = (CONFIGS[name](manifest, tmp_path / folder) for folder in ("whole", "parts"))
    assert loop.train(whole, quiet=True) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "parts", ignore=shutil.ignore_patterns("step-000006.pt", "*.safetensors"))
    with pytest.raises(InputError, match="holds a run at step-000003; go on with --resume"):
        loop.train(parts, quiet=True)
    assert loop.train(parts, resume=True, quiet=True) == 0
    losses = [log_of(tmp_path / folder, "loss") for folder in ("whole", "parts")]
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]
    for file in (f"{name}.safetensors", "training_only.safetensors"):
        one, two = (load_file(tmp_path / folder / file) for folder in ("whole", "parts"))
        assert set(one) == set(two)
        assert all(torch.equal(one[key], two[key]) for key in one)
    with pytest.raises(InputError, match=r"was begun with another data\.duration_s \(2\.56 instead of 1\.5\)"):
        loop.train(CONFIGS[name](manifest, tmp_path / "parts", "data.duration_s=1.5"), resume=True, quiet=True)
    assert load(type(parts), str(tmp_path / "parts")) == parts, "what was refused is not written"


def test_a_resumed_run_has_the_optimisers_settings_of_now(manifest: Path, tmp_path: Path) -> None:
    assert loop.train(clip_config(manifest, tmp_path, "train.steps=1"), quiet=True) == 0
    changed = ("train.steps=2", "optim.weight_decay=0.3", "optim.betas=[0.5, 0.6]")
    assert loop.train(clip_config(manifest, tmp_path, *changed), resume=True, quiet=True) == 0
    groups = torch.load(tmp_path / "checkpoints" / "step-000002.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all(group["betas"] == (0.5, 0.6) for group in groups)


def test_a_request_to_stop_saves(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(1, 7))

    def stopped_at_2(*arguments: Any) -> Any:
        scalars = update(*arguments)
        if next(steps) == 2:
            signal.raise_signal(signal.SIGTERM)
        return scalars

    monkeypatch.setattr(loop, "update", stopped_at_2)
    assert loop.train(sync_config(manifest, tmp_path), quiet=True) == 143
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002.pt"]
    assert not (tmp_path / "sync.safetensors").exists()


def test_what_is_not_finite_ends_the_run(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "update", lambda *arguments: {"loss": torch.tensor(math.nan)})
    with pytest.raises(MMAudioError, match="At step 1 loss is nan"):
        loop.train(clip_config(manifest, tmp_path), quiet=True)


@both
def test_going_on_from_a_file(runs: dict[str, Path], manifest: Path, tmp_path: Path, name: str) -> None:
    base = runs[name] / f"{name}.safetensors"
    before = load_file(base)
    config = CONFIGS[name](manifest, tmp_path, f"model.base={base}", "train.steps=1", "train.licence=")
    assert loop.train(config, quiet=True) == 0
    after = load_file(tmp_path / f"{name}.safetensors")
    assert set(before) == set(after)
    assert all(torch.allclose(before[key], after[key], atol=0.02) for key in before)
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert all(torch.equal(value, load_file(base)[key]) for key, value in before.items())
    assert open_raw_part(tmp_path / f"{name}.safetensors").values["licence"] == "mine"


@both
def test_nothing_usable(tmp_path: Path, name: str) -> None:
    write_manifest([Row("a", "gone.mp4", "words"), Row("b", "none.mp4", "words")], tmp_path / "data.tsv")
    with pytest.raises(InputError, match=r"Of 64 rows drawn .* none can be used \((gone|none)\.mp4: missing"):
        loop.train(CONFIGS[name](tmp_path / "data.tsv", tmp_path / "run", "data.held_out_split=train"), quiet=True)
    with pytest.raises(InputError, match="no rows of the split 'other'"):
        loop.train(CONFIGS[name](tmp_path / "data.tsv", tmp_path / "run", "data.split=other"), quiet=True)


def test_several_processes_are_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Start it without torchrun"):
        loop._check_alone(replace_world(2))


def replace_world(world: int) -> Any:
    from .helpers_f import ONE

    return replace(ONE, world=world)


def test_rows_come_once_before_one_comes_again_and_the_same_for_any_workers(manifest: Path, tmp_path: Path) -> None:
    task = SyncTask(sync_config(manifest, tmp_path), CPU)
    seen = [[item.clip for step in task.rows("val").batches(3, range(1, 4), 2, n) for item in step] for n in (1, 3)]
    assert seen[0] == seen[1]
    assert sorted(seen[0][:4]) == [0, 1, 2, 3]
    frames = [next(task.rows("train").batches(3, range(5, 6), 4, n)) for n in (1, 3)]
    assert all(torch.equal(a.frames, b.frames) and torch.equal(a.starts, b.starts) for a, b in zip(*frames, strict=True))


def test_frames_at_times(manifest: Path) -> None:
    """Those of the whole reading; beyond the end the last one."""
    path = manifest.parent / "1.mp4"
    frames = read_video(path, 2.56, hold_last=True, clip_size=16, sync_size=32).clip  # at 0, 0.125, ... s
    assert torch.equal(frames_at(path, [0.0, 0.125, 1.0, 1.0], 16), frames[[0, 1, 8, 8]])
    late = frames_at(path, [2.5, 9.0], 16)
    assert torch.equal(late[1], frames_at(path, [2.52], 16)[0])


def test_sound_and_quiet_are_those_of_the_pictures(manifest: Path, tmp_path: Path) -> None:
    task = SyncTask(sync_config(manifest, tmp_path, "data.segments=3"), CPU)
    for number, item in enumerate(task.rows("val").first(4, 1)):
        colour = torch.tensor(list(COLOURS.values())[number % 4], dtype=torch.float32)
        middle = item.frames[..., 24, 16].float()  # below the stripe
        flash = (middle - colour).abs().sum(-1) < 60
        inner = item.samples[:, MARGIN_SAMPLES:-MARGIN_SAMPLES].unflatten(1, (16, FRAME_SAMPLES))
        assert item.samples.shape[0] == item.frames.shape[0] == 3
        loud = inner.square().mean(-1) > 0.01
        # Which frame stands for an instant is within a frame by the pipeline's rule; two would be a fault.
        for one, other in ((flash, loud), (loud, flash)):
            near = F.max_pool1d(other.float()[:, None], 3, stride=1, padding=1)[:, 0] > 0
            assert near[:, 1:-1][one[:, 1:-1]].all()
        assert not item.quiet[loud.unflatten(1, (8, 2)).any(-1)].any()
        assert item.quiet.any()


def test_sound_does_not_tell_the_place_in_a_segment() -> None:
    torch.manual_seed(0)
    tower = AudioTower(16)
    sound = 0.3 * torch.randn(SEGMENT_SAMPLES + 2 * MARGIN_SAMPLES + 3 * TOKEN_SAMPLES)
    first, later = sound[: -3 * TOKEN_SAMPLES], sound[3 * TOKEN_SAMPLES :]
    with torch.no_grad():
        tokens = tower(torch.stack((first, later)))
    assert tokens.shape == (2, 8, 16)
    assert torch.allclose(tokens[0, 3:], tokens[1, :-3], atol=1e-4)
    assert not torch.allclose(tokens[0, 3], tokens[0, 4], atol=1e-1)


def test_the_commands(manifest: Path, tmp_path: Path) -> None:
    changes = {"data.manifest": manifest, "train.folder": tmp_path, "data.duration_s": 2.56, "train.steps": 1, "train.batch": 2}
    changes |= {"model.width": 16, "model.blocks": 1, "model.grid": 1, "log.measure_every": 0, "loss.segments": 0}
    sets = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    assert main(["sync", "sync_world", *sets, "--quiet", "--debug"]) == 0
    assert set(log_of(tmp_path, "loss/tokens")) == {1}
    assert not log_of(tmp_path, "loss/segments")
    assert main(["sync", "sync_world", *sets, "--quiet"]) == 2

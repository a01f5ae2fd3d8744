"""``mmaudio-train run`` from shards to files, interrupted and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmaudio_core.errors import InputError, WeightsError
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.opening import open_media
from mmaudio_core.pipeline.files import EMBEDDED_FILE
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.metadata import decode
from mmaudio_core.weights.safetensors_file import read_header
from trainer.cli import main
from trainer.config.load import load_run_config
from trainer.data.index import Index
from trainer.ema.snapshots import read_snapshot
from trainer.engine.checkpoint import latest, read_extra, read_tensors
from trainer.flow.initialise import empty_text_feature
from trainer.flow.statistics import latent_statistics

from .helpers_c import ONE, made_up_samples, made_up_shards


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    frames = (np.full((32, 32, 3), i, dtype=np.uint8) for i in range(50))
    write_silent_video(frames, 25, folder / "clip.mp4")
    made_up_shards(folder / "train", 12)
    made_up_shards(folder / "val", 4, seed=1, path="clip.mp4")
    return folder


def changes(data: Path, run: Path, *more: str) -> list[str]:
    usual = [
        f"data.train={data / 'train'}",
        f"data.validation={data / 'val'}",
        f"train.folder={run}",
        f"preview.media_root={data}",
    ]
    return [*usual, *more]


def command(data: Path, run: Path, *more: str, config: str = "smoke_cpu") -> int:
    return main(["run", config, "--quiet", "--debug", "--set", *changes(data, run, *more)])


def lines(run: Path, event: str | None = None) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in every if line.get("event") == event]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the smoke configuration, unbroken."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert command(data, run) == 0
    return run


def test_log_has_every_step(whole: Path) -> None:
    steps = lines(whole)
    assert [line["step"] for line in steps] == list(range(1, 21))
    assert steps[0]["lr"] == pytest.approx(1e-3 / 5)
    assert steps[16]["lr"] == pytest.approx(1e-4)
    assert steps[0]["loss"] == pytest.approx(2, abs=0.7)  # nothing predicted yet: both noise and latents have variance 1
    for line in steps:
        assert line["grad_norm"] > 0
        assert line["samples_per_s"] > 0
        assert 0 <= line["data_share"] <= 1
        assert line["skipped"] == 0
    assert [line["step"] for line in lines(whole, "validation")] == [0, 10, 20]
    found = lines(whole, "validation")[0]
    buckets = [value for name, value in found.items() if name.startswith("held_out/")]
    assert len(buckets) == 10
    assert found["held_out"] == pytest.approx(sum(buckets) / 10)


def test_files_of_a_run(whole: Path) -> None:
    assert load_run_config(str(whole)).train.steps == 20
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step-00000010", "step-00000020"]
    names = sorted(path.name for path in (whole / "ema").iterdir())
    assert names == [f"step-000000{step}-{width}.safetensors" for step in (10, 20) for width in (0.05, 0.1)]
    assert any((whole / "tensorboard").iterdir())
    assert not (whole / "bad_batches.jsonl").exists()


def test_previews_are_sound_and_video(whole: Path) -> None:
    for folder in ("reference", "step-00000020"):
        names = sorted(path.name for path in (whole / "previews" / folder).iterdir())
        assert names == ["01-clip-1-0.flac", "01-clip-1-0.mp4"]
        with open_media(whole / "previews" / folder / names[1]) as media:
            assert {stream.type for stream in media.streams} == {"video", "audio"}
        with open_media(whole / "previews" / folder / names[0]) as media:
            stream = media.streams.audio[0]
            assert stream.rate == 16_000
            samples = sum(frame.samples for frame in media.decode(stream))
            assert samples == 32_000


def test_tensorboard_has_players_pictures_and_points(whole: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = events.EventAccumulator(str(whole / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    tags = board.Tags()
    assert {"train/loss", "train/data_share", "validation/held_out", "validation/training/t 0.9-1.0"} <= set(tags["scalars"])
    assert set(tags["audio"]) == {"preview/01", "reference/01"}
    assert set(tags["images"]) == {"preview/01 mel", "reference/01 mel"}
    logged = {event.step: event.value for event in board.Scalars("train/loss")}
    assert logged == pytest.approx({line["step"]: line["loss"] for line in lines(whole)})


def test_snapshots_are_whole_networks_with_the_datas_statistics(whole: Path, data: Path) -> None:
    path = whole / "ema" / "step-00000020-0.05.safetensors"
    network, spec = load_part(path, "flow")
    snapshot = read_snapshot(path)
    assert snapshot is not None
    assert snapshot.about["config"]["train"]["folder"] == "whole", "a file that may be shared names no folders"
    mean, std = latent_statistics(Index.load(data / "train"), ONE)
    assert torch.equal(network.latent_mean, mean)  # type: ignore[arg-type]
    assert torch.equal(network.latent_std, std)  # type: ignore[arg-type]
    config = load_run_config("smoke_cpu", changes(data, whole)).model
    feature = empty_text_feature(config, spec)  # type: ignore[arg-type]
    assert torch.equal(network.empty_string_feat, feature)  # type: ignore[arg-type]
    assert bool(feature.any())


def test_a_run_goes_on_from_its_checkpoint_with_the_same_losses(whole: Path, data: Path, tmp_path: Path) -> None:
    """As after a kill: the second half is taken away, and a cut-off line is left behind."""
    run = tmp_path / "again"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints" / "step-00000020")
    with open(run / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 2')
    assert command(data, run) == 0
    first, second = lines(whole), lines(run)
    assert [line["step"] for line in second] == list(range(1, 21))
    for name in ("loss", "grad_norm", "lr"):
        assert [line[name] for line in first] == [line[name] for line in second]
    for prefix in ("model.", "ema.0.05.", "ema.0.1."):
        tensors = [read_tensors(path / "checkpoints" / "step-00000020", prefix) for path in (whole, run)]
        assert tensors[0].keys() == tensors[1].keys()
        assert tensors[0]
        assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    before, after = lines(whole, "validation")[-1], lines(run, "validation")[-1]
    assert before == after


def test_a_finished_run_does_nothing_more(whole: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "again"
    shutil.copytree(whole, run)
    assert command(data, run) == 0
    assert lines(run) == lines(whole)


def test_another_run_is_not_gone_on_with(whole: Path, data: Path) -> None:
    for change, said in (
        ("train.seed=5", "another train.seed"),
        ("model.sizes.audio_blocks=2", "another model"),
        ("train.global_batch=8", "another train.global_batch"),
    ):
        with pytest.raises(InputError, match=said):
            command(data, whole, change)


def test_fewer_steps_than_were_done_are_refused_before_anything_is_written(data: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(InputError, match=r"train\.steps is 15, but the run in .*run has done 20; give 20 or more"):
        command(data, run, "train.steps=15")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_statistics_are_those_of_samples_with_video(data: Path) -> None:
    found = [sample.latent_mean for sample, _ in made_up_samples(12) if sample.kind == "av"]
    rows = torch.cat(found).double()
    mean, std = latent_statistics(Index.load(data / "train"), ONE)
    torch.testing.assert_close(mean[0, 0], rows.mean(0).float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(std[0, 0], rows.std(0).float(), rtol=1e-6, atol=1e-6)


def test_fine_tuning_keeps_the_bases_statistics_and_measures_it_first(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "tuned"
    options = ("model.variant=", f"model.base={EMBEDDED_FILE}", "train.steps=2", "optim.warmup_steps=1", "preview.every=0")
    assert command(data, run, *options, "checkpoint.every=0", "validation.every=1") == 0
    base, _ = load_part(EMBEDDED_FILE, "flow", dtype=torch.float32)
    tuned = read_tensors(run / "checkpoints" / "step-00000002", "model.network.")
    changed = {name for name, value in base.state_dict().items() if not torch.equal(value, tuned[name])}
    data_names = {"latent_mean", "latent_std", "empty_string_feat"}
    assert not changed & data_names
    assert len(changed) > 0.8 * len(tuned)
    assert [line["step"] for line in lines(run, "validation")] == [0, 1, 2]
    assert read_extra(run / "checkpoints" / "step-00000002")["first_ratio"] == lines(run, "validation")[0]["ratio"]


def test_a_lora_is_trained_saved_and_gone_on_with(data: Path, tmp_path: Path) -> None:
    from mmaudio_core.weights.lora import check_lora

    options = ["model.variant=", f"model.base={EMBEDDED_FILE}", "optim.warmup_steps=1", "preview.every=0"]
    options += [
        "lora.rank=2",
        "lora.dropout=0.5",
        "ema.sigma_rels=[]",
        "validation.every=0",
        "data.validation=",
        "train.steps=4",
    ]
    options += ["checkpoint.every=2", "optim.decay_at=[]"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command(data, whole, *options) == 0
    shutil.copytree(whole, broken)
    shutil.rmtree(broken / "checkpoints" / "step-00000004")
    assert command(data, broken, *options) == 0
    assert [line["loss"] for line in lines(whole)] == [line["loss"] for line in lines(broken)]
    base, _ = load_part(EMBEDDED_FILE, "flow", dtype=torch.float32)
    path = whole / "lora" / "step-00000004.safetensors"
    assert check_lora(path, {name: tuple(value.shape) for name, value in base.state_dict().items()}) > 3
    assert "lora_A" in " ".join(read_header(path).entries)
    said = decode(read_header(path).metadata)
    assert said["licence"] == "MIT", "as the base's"
    given = said["config"]
    assert (given["train"]["folder"], given["model"]["base"]) == ("whole", EMBEDDED_FILE.name)
    held = read_tensors(whole / "checkpoints" / "step-00000004", "model.network.")
    assert all(torch.equal(value, held[name]) for name, value in base.state_dict().items())


def test_bad_batches_are_skipped_and_recorded(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "bad"
    options = (
        "train.steps=3",
        "optim.warmup_steps=1",
        "health.max_gradient_norm=1e-9",
        "validation.every=0",
        "preview.every=0",
    )
    assert command(data, run, *options, "health.max_consecutive_skips=0") == 0
    assert [line["skipped"] for line in lines(run)] == [1, 1, 1]
    recorded = [json.loads(line) for line in (run / "bad_batches.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in recorded] == [line["step"] for line in lines(run)] == [1, 2, 3]
    assert all(len(line["ids"]) == 4 and len(line["losses"]) == 4 for line in recorded)


def test_data_of_other_widths_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="text_dim 64 where the network takes 24"):
        command(data, tmp_path / "run", "model.sizes.text_dim=24")


def test_a_steady_network_needs_data_of_eight_seconds(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = r"\"steady\" is the pace of 8 s, and the data are clips of 2 s; extract them with --duration 8"
    with pytest.raises(InputError, match=wrong):
        command(data, tmp_path / "run", "model.sizes.sync_timing=steady")
    few = ("model.variant=", f"model.base={EMBEDDED_FILE}", "train.steps=1", "optim.warmup_steps=0", "preview.every=0")
    assert main(["run", "smoke_cpu", "--set", *changes(data, tmp_path / "tuned", *few)]) == 0
    assert 'it is trained as "stretched"' in capsys.readouterr().err
    assert main(["export", str(tmp_path / "tuned"), "-o", str(tmp_path / "tuned.safetensors"), "--quiet"]) == 0
    tuned, _ = load_part(tmp_path / "tuned.safetensors", "flow")
    assert tuned.spec.sync_timing == "stretched"


def test_a_base_of_another_variant_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.variant asks for small_16k"):
        command(data, tmp_path / "run", f"model.base={EMBEDDED_FILE}", "model.variant=small_16k")


def test_the_configuration_can_be_looked_at(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "smoke_cpu", "--show", "--set", "train.steps=7"]) == 0
    shown = tmp_path / "shown.toml"
    shown.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_run_config(str(shown)).train.steps == 7
    assert latest(tmp_path) is None

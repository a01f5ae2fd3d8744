"""Extraction: what goes into shards, what is left out and why, and that ranks and restarts change no bit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.attention.choose import Chooser
from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.autoencoder.vae import VAE
from mmaudio_core.features.clip import CLIPEncoder
from mmaudio_core.features.synchformer import SynchformerVisual
from mmaudio_core.media.audio_out import save_audio
from mmaudio_core.media.resample import resample
from mmaudio_core.media.soundtrack import load_sound
from mmaudio_core.media.video import read_video
from mmaudio_core.pipeline.files import EMBEDDED_FILE
from mmaudio_core.spec.audio import AUDIO_16K, AUDIO_44K
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.parts import open_raw_part
from mmaudio_core.weights.safetensors_file import write_safetensors
from tests.trainer.extracting import contents, extract
from tests.trainer.helpers_a import tone, write_clip, write_sound
from trainer.data.index import INDEX_NAME, Index
from trainer.data.manifest import Row, write_manifest
from trainer.data.report import read_report
from trainer.data.shards import Sample
from trainer.extract.clips import crop_samples
from trainer.extract.encoders import weights_sha256
from trainer.extract.settings import SETTINGS_NAME

BAD = {"q": "silent", "n": "no sound", "gone": "missing", "short": "too short", "junk": "unreadable"}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, recordings and what is wrong with either."""
    folder = tmp_path_factory.mktemp("media")
    rows = []
    for i in range(4):
        write_clip(folder / f"v{i}.mp4", 1.4 + 0.2 * i)
        rows.append(Row(f"v{i}", f"v{i}.mp4", ("cat", "", "dog", "cat")[i]))
    write_clip(folder / "n.mp4", 1.2, sound_s=0)
    write_sound(folder / "s.wav", 3.5)
    write_sound(folder / "q.wav", 1.5, level=0.0005)
    write_sound(folder / "short.wav", 0.5)
    (folder / "junk.mp4").write_bytes(b"junk" * 100)
    rows += [
        Row("q", "q.wav", "silence"),
        Row("s", "s.wav", "hum"),
        Row("n", "n.mp4", "mute"),
        Row("gone", "gone.mp4"),
        Row("short", "short.wav"),
        Row("junk", "junk.mp4"),
        Row("held", "s.wav", "hum", split="val"),
        Row("part", "s.wav", "hum", start_s=1.25, end_s=2.75),
    ]
    write_manifest(rows, folder / "m.tsv")
    return folder


@pytest.fixture(scope="module")
def unbroken(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of one run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken") / "shards"
    assert extract(media / "m.tsv", folder) == 0
    return folder


def samples_of(folder: Path) -> dict[str, Sample]:
    return {sample.id: sample for info in Index.load(folder).shards for sample in info.open(verify=True)}


def test_attention_is_not_chosen_by_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "v.mp4", 1.4)
    write_manifest([Row("v", "v.mp4", "cat")], tmp_path / "data.tsv")
    monkeypatch.setattr(Chooser, "_fastest", lambda *_: pytest.fail("it might be another one in the next process"))
    assert extract(tmp_path / "data.tsv", tmp_path / "out") == 0


def test_rows_become_samples_and_bad_ones_are_reported(unbroken: Path) -> None:
    index = Index.load(unbroken)
    assert list(samples_of(unbroken)) == ["v0", "v1", "v2", "v3", "s@0", "s@1.25", "s@2.5", "part"]
    assert index.counts == {"av": 4, "at": 4}
    assert [len(info) for info in index.shards] == [3, 4, 0, 1]
    assert (index.audio.name, index.duration_s) == ("16k", 1.0)
    assert {row.id: row.reason for row in read_report(unbroken / "bad.jsonl")} == BAD
    assert [info.bad for info in index.shards] == [0, 1, 3, 1]
    assert set(contents(unbroken)) == {
        *(f"shard-00000{n}.safetensors" for n in range(4)),
        "bad.jsonl",
        INDEX_NAME,
        SETTINGS_NAME,
    }


def test_missing_inputs_are_absent(unbroken: Path) -> None:
    samples = samples_of(unbroken)
    assert samples["v1"].text is None
    assert samples["v1"].clip is not None
    assert samples["s@0"].clip is None
    assert samples["s@0"].sync is None
    assert samples["s@0"].text is not None
    widths = Index.load(unbroken).widths
    sample = samples["v0"]
    assert (widths.latent, widths.clip, widths.sync, widths.text) == ((32, 20), (8, 64), (16, 128), (77, 64))
    for name in ("clip", "sync", "text"):
        assert tuple(getattr(sample, name).shape) == getattr(widths, name)


def test_latents_are_those_of_the_core(media: Path, unbroken: Path) -> None:
    """Alone and step by step: mono, the crop, the rate, the peak, mel, VAE."""
    vae: Any = load_part(EMBEDDED_FILE, "vae", dtype=torch.float32)[0]
    assert isinstance(vae, VAE)
    samples = samples_of(unbroken)
    for name, file, start_s in (("v2", "v2.mp4", 0.0), ("s@1.25", "s.wav", 1.25), ("part", "s.wav", 1.25)):
        sound = load_sound(media / file)
        first = round(start_s * sound.sample_rate_hz)
        wanted = 32 * 2 * 256
        mono = sound.samples[0].mean(0)[first : first + wanted * sound.sample_rate_hz // 16000]
        mono = resample(mono, sound.sample_rate_hz, 16000)[:wanted]
        mono = torch.nn.functional.pad(mono, (0, wanted - len(mono)))
        mono = mono / mono.abs().max() * 0.95
        found = vae.encode(MelAnalysis(AUDIO_16K)(mono[None]))
        assert torch.allclose(samples[name].latent_mean, found.mean[0], atol=1e-3)
        assert torch.allclose(samples[name].latent_std, found.std[0], atol=1e-3)


def test_features_are_those_of_the_core(media: Path, unbroken: Path) -> None:
    """Clip by clip through the reference modules, although extraction puts clips behind each other."""
    samples = samples_of(unbroken)
    clip: Any = load_part(EMBEDDED_FILE, "clip", dtype=torch.float32)[0]
    sync: Any = load_part(EMBEDDED_FILE, "synchformer", dtype=torch.float32)[0]
    assert isinstance(clip, CLIPEncoder)
    assert isinstance(sync, SynchformerVisual)
    for i in range(4):
        sizes = {"clip_size": clip.spec.image_size, "sync_size": sync.spec.image_size}
        frames = read_video(media / f"v{i}.mp4", 1.0, hold_last=True, **sizes)
        assert frames.sync is not None
        seen = samples[f"v{i}"]
        assert seen.clip is not None
        assert seen.sync is not None
        assert torch.allclose(seen.clip.float(), clip.encode_image(frames.clip, plain=True)[0], atol=2e-3)
        assert torch.allclose(seen.sync.float(), sync.encode(frames.sync, plain=True)[0], atol=5e-3)
    assert torch.allclose(samples["v2"].text.float(), clip.encode_text(["dog"], plain=True)[0], atol=2e-3)  # type: ignore[union-attr]
    assert not torch.allclose(samples["v2"].text.float(), samples["v0"].text.float(), atol=2e-3)  # type: ignore[union-attr]


def test_the_level_of_a_recording_does_not_matter(tmp_path: Path) -> None:
    for name, level in (("loud", 0.8), ("low", 0.02)):
        save_audio((tone(1.2, level, 16000), 16000), tmp_path / f"{name}.flac")
    write_manifest([Row("loud", "loud.flac"), Row("low", "low.flac")], tmp_path / "m.tsv")
    assert extract(tmp_path / "m.tsv", tmp_path / "out") == 0
    samples = samples_of(tmp_path / "out")
    # What 16 bits at -34 dB lose is all that differs.
    difference = (samples["loud"].latent_mean - samples["low"].latent_mean).abs().mean()
    assert difference < 0.05 * samples["loud"].latent_mean.abs().mean()


@pytest.mark.parametrize(("audio", "tokens"), [(AUDIO_16K, 250), (AUDIO_44K, 345)])
def test_crops_have_exactly_the_samples_of_their_tokens(audio: Any, tokens: int) -> None:
    wanted = audio.samples_of_latents(tokens)
    for rate_hz in (8000, 16000, 22050, 44100, 48000):
        for seconds in (8.0, 8.5, 20.0):
            mono = torch.ones(round(seconds * rate_hz))
            samples = crop_samples(mono, rate_hz, 0.0, audio, tokens)
            assert samples.shape == (wanted,)
            inside = samples[1000 : round(8.0 * audio.sample_rate_hz) - 1000]
            assert torch.allclose(inside, torch.ones(()), atol=1e-2), "no silence within the sound"
    later = crop_samples(torch.arange(20.0 * 8000) / 8000, 8000, 5.5, AUDIO_16K, 250)
    assert abs(float(later[8000]) - 6.0) < 0.01, "a sample half a second into the crop is heard at 6 s"
    assert not crop_samples(torch.ones(100), 8000, 5.0, AUDIO_16K, 250).any()


def test_running_again_does_nothing(media: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in unbroken.iterdir()}
    assert extract(media / "m.tsv", unbroken) == 0
    assert capsys.readouterr().out.strip() == str(unbroken / INDEX_NAME)
    assert {path.name: path.stat().st_mtime_ns for path in unbroken.iterdir()} == before


def test_only_missing_shards_are_made(media: Path, unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(unbroken, folder)
    (folder / "shard-000001.safetensors").unlink()
    (folder / "shard-000001.safetensors.partial").write_bytes(b"half")
    (folder / "index.json.0.partial").write_bytes(b"half")
    (folder / "bad.jsonl.7.partial").write_bytes(b"of a rank that is no more")
    kept = (folder / "shard-000000.safetensors").stat().st_mtime_ns
    assert extract(media / "m.tsv", folder) == 0
    assert contents(folder) == contents(unbroken)
    assert (folder / "shard-000000.safetensors").stat().st_mtime_ns == kept


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_blocks_and_the_last_one_writes_the_index(
    media: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    made: list[str] = []
    for rank in reversed(range(world)):
        monkeypatch.setenv("RANK", str(rank))
        assert not (tmp_path / INDEX_NAME).exists()
        assert extract(media / "m.tsv", tmp_path) == 0
        there = {path.name for path in tmp_path.glob("shard-*")}
        assert there - set(made) == {f"shard-{number:06d}.safetensors" for number in range(rank, 4, world)}
        made = sorted(there)
    assert contents(tmp_path) == contents(unbroken)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--duration", "1.2"), r"duration_s \(1\.0 there, 1\.2 now\)"),
        (("--rows-per-shard", "4"), r"rows_per_shard \(3 there, 4 now\)"),
        (("--without-text",), "the encoders|text"),
        (("--dtype", "bfloat16"), "the encoders' dtype"),
        (("--split", "val"), r"split \(train there, val now\)"),
    ],
)
def test_other_settings_are_refused(
    media: Path, unbroken: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], named: str
) -> None:
    before = contents(unbroken)
    assert extract(media / "m.tsv", unbroken, *options) == 2
    said = capsys.readouterr().err
    assert "was begun with other settings" in said
    assert re.search(named, said)
    assert contents(unbroken) == before


def test_another_manifest_other_ids_and_other_encoders_are_refused(
    media: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "m.tsv"
    changed.write_text((media / "m.tsv").read_text().replace("dog", "fox"))
    assert extract(changed, unbroken) == 2
    assert "the manifest's content" in capsys.readouterr().err
    ids = tmp_path / "ids.txt"
    ids.write_text("v1\n")
    assert extract(media / "m.tsv", unbroken, "--exclude", str(ids)) == 2
    assert "the lists of excluded ids" in capsys.readouterr().err
    monkeypatch.setattr("trainer.extract.encoders.weights_sha256", lambda path, kind: "0" * 64)
    assert extract(media / "m.tsv", unbroken) == 2
    assert "the encoders' weights" in capsys.readouterr().err
    (unbroken / SETTINGS_NAME).rename(tmp_path / "away")
    assert extract(media / "m.tsv", unbroken) == 2
    assert "holds shards but no settings.json" in capsys.readouterr().err
    (tmp_path / "away").rename(unbroken / SETTINGS_NAME)


def test_the_hash_is_of_the_weights_that_encode(tmp_path: Path) -> None:
    raw = open_raw_part(EMBEDDED_FILE, "vae")
    tensors = {name: value.clone() for name, value in raw.tensors.items()}
    before = weights_sha256(EMBEDDED_FILE, "vae")
    for name, same in (("decoder.conv_out.weight", True), ("encoder.conv_in.weight", False)):
        tensors[name] += 1
        write_safetensors(tmp_path / "vae.safetensors", tensors, {})
        assert (weights_sha256(tmp_path / "vae.safetensors", "vae") == before) is same


def test_excluded_ids_never_enter(media: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("v1\ns.wav\n")
    assert extract(media / "m.tsv", tmp_path / "out", "--exclude", str(tmp_path / "ids.txt"), "--latents-only") == 0
    assert sorted(samples_of(tmp_path / "out")) == ["v0", "v2", "v3"]
    reasons = {row.id: row.reason for row in read_report(tmp_path / "out" / "bad.jsonl")}
    assert reasons == BAD | dict.fromkeys(("v1", "s", "part"), "overlap")
    assert b"sound of s" not in b"".join(contents(tmp_path / "out").values())


def test_latents_alone(media: Path, unbroken: Path, tmp_path: Path) -> None:
    assert extract(media / "m.tsv", tmp_path, "--latents-only") == 0
    whole, alone = samples_of(unbroken), samples_of(tmp_path)
    assert list(alone) == list(whole)
    assert list(Index.load(tmp_path).encoders) == ["vae"]
    for name, sample in alone.items():
        assert (sample.clip, sample.sync, sample.text) == (None, None, None)
        assert torch.equal(sample.latent_mean, whole[name].latent_mean)
    assert alone["v0"].kind == "av", "a video's sound keeps its weight among the kinds"


def test_captions_are_encoded_once_per_block(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    whole = CLIPEncoder.encode_text

    def noting(self: CLIPEncoder, texts: list[str], plain: bool = False) -> torch.Tensor:
        asked.append(list(texts))
        return whole(self, texts, plain)

    monkeypatch.setattr(CLIPEncoder, "encode_text", noting)
    assert extract(media / "m.tsv", tmp_path, "--without-video") == 0
    assert asked == [["cat", "dog"], ["cat", "hum"], ["hum"]]


def test_a_video_that_ends_early_is_too_short(tmp_path: Path) -> None:
    """The header says nothing wrong: the sound is long enough, the pictures are not."""
    write_clip(tmp_path / "v.mp4", 0.8, sound_s=2.0)
    write_manifest([Row("v", "v.mp4"), Row("w", "v.mp4", start_s=0.5)], tmp_path / "m.tsv")
    assert extract(tmp_path / "m.tsv", tmp_path / "out") == 0
    bad = read_report(tmp_path / "out" / "bad.jsonl")
    assert [(row.id, row.reason) for row in bad] == [("v", "too short"), ("w", "too short")]
    assert len(Index.load(tmp_path / "out")) == 0


def test_malformed_rows_are_reported_with_their_line(media: Path, tmp_path: Path) -> None:
    lines = [*(media / "m.tsv").read_text().splitlines()[:2], "only one value", "v0\tv0.mp4\tagain\t\t\ttrain"]
    (media / "odd.tsv").write_text("\n".join(lines))
    assert extract(media / "odd.tsv", tmp_path / "out") == 0
    bad = read_report(tmp_path / "out" / "bad.jsonl")
    assert [(row.line, row.reason) for row in bad] == [(3, "malformed"), (4, "duplicate id")]


def test_wrong_arguments(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        (("--split", "test"), "no rows of the split 'test'; it has train (11), val (1)"),
        (("--duration", "0.5"), "at least 0.64 s"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--rows-per-shard", "0"), "--rows-per-shard 0"),
        (("--workers", "-1"), "--workers -1"),
        (("--exclude", str(tmp_path / "no.txt")), "no.txt"),
    ):
        assert extract(media / "m.tsv", tmp_path / "out", *options) == 2
        assert said in capsys.readouterr().err
    assert extract(media / "none.tsv", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def test_the_index_tells_what_there_is(unbroken: Path) -> None:
    values = json.loads((unbroken / INDEX_NAME).read_text())
    assert values["totals"] == {
        "samples": 8,
        "av": 4,
        "at": 4,
        "bad": 5,
        "bytes": sum(path.stat().st_size for path in unbroken.glob("shard-*")),
    }
    assert values["encoders"] == {kind: weights_sha256(EMBEDDED_FILE, kind) for kind in ("clip", "synchformer", "vae")}
    assert str(unbroken.parent) not in json.dumps(values), "no paths of this machine"

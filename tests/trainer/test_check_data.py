"""``mmaudio-train check-data``: the round trip through VAE and vocoder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.errors import WeightsError
from mmaudio_core.pipeline.files import EMBEDDED_FILE
from mmaudio_core.spec.audio import AUDIO_16K, AUDIO_44K, AudioSpec
from mmaudio_core.weights.build import load_part
from trainer.cli import main
from trainer.cli.check_data import chosen_rows
from trainer.data.manifest import Row, write_manifest
from trainer.data.report import Report
from trainer.data.round_trip import RoundTrip, RoundTripper, mel_distance_db, sentences, stft_distance, table, worst_first

from .helpers_a import write_clip, write_sound


@pytest.fixture(autouse=True)
def _no_users_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MMAUDIO_WEIGHTS", str(tmp_path / "no weights"))


@pytest.fixture(scope="module")
def tripper() -> RoundTripper:
    vae, _ = load_part(EMBEDDED_FILE, "vae")
    vocoder, _ = load_part(EMBEDDED_FILE, "vocoder")
    return RoundTripper(vae, vocoder)  # type: ignore[arg-type]


def noise(samples: int = 16_384, level: float = 0.1) -> Tensor:
    return level * torch.randn(samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("audio", [AUDIO_16K, AUDIO_44K], ids=lambda audio: audio.name)
def test_ten_times_as_loud_is_twenty_decibels(audio: AudioSpec) -> None:
    sound = noise(40_000, 0.05)
    mel, louder = MelAnalysis(audio)(torch.stack((sound, 2 * sound)))
    assert mel_distance_db(mel, louder, audio) == pytest.approx(20 * math.log10(2), abs=0.01)
    assert mel_distance_db(mel, mel, audio) == 0.0


def test_stft_distance_of_half_the_sound() -> None:
    sound = noise()
    assert stft_distance(sound, sound) == 0.0
    # Convergence of a half is 0.5, and its log magnitude lies ln 2 below.
    assert stft_distance(sound, sound / 2) == pytest.approx(0.5 + math.log(2), abs=1e-3)
    assert stft_distance(sound, sound / 4) > stft_distance(sound, sound / 2)
    assert math.isfinite(stft_distance(torch.zeros(500), torch.zeros(500)))


def test_a_perfect_round_trip_has_no_error(tripper: RoundTripper, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = noise()
    monkeypatch.setattr(tripper, "back", lambda samples: (MelAnalysis(AUDIO_16K)(samples[None])[0], samples))
    trip = tripper.measure(sound, "a", "a.wav", 2.0)
    assert (trip.id, trip.path, trip.start_s, trip.mel_db, trip.vae_mel_db, trip.stft) == ("a", "a.wav", 2.0, 0.0, 0.0, 0.0)
    assert trip.peak_db == trip.back_peak_db == pytest.approx(20 * math.log10(float(sound.abs().max())), abs=1e-4)
    assert trip.level_db == trip.back_level_db == pytest.approx(-20, abs=0.2)


def test_the_round_trip_is_vae_and_vocoder_as_they_are_written(tripper: RoundTripper) -> None:
    sound = noise()
    analysis = MelAnalysis(AUDIO_16K)
    with torch.no_grad():
        mel = analysis(sound[None])
        decoded = tripper._vae.decode(tripper._vae.encode(mel).mean)
        back = tripper._vocoder(decoded)[0, 0]
        assert back.shape == sound.shape
    trip = tripper.measure(sound)
    assert trip.vae_mel_db == pytest.approx(20 * float((mel - decoded).abs().mean()), rel=1e-3)
    assert trip.mel_db == pytest.approx(20 * float((mel - analysis(back[None])).abs().mean()), rel=1e-3)
    assert trip.stft == pytest.approx(stft_distance(sound, back), rel=1e-3)
    assert trip.back_level_db == pytest.approx(20 * math.log10(float(back.square().mean().sqrt())), abs=0.01)
    assert min(trip.vae_mel_db, trip.mel_db, trip.stft) > 0.1


def test_parts_of_two_rates_and_broken_weights_are_refused(tripper: RoundTripper) -> None:
    parts = [SimpleNamespace(spec=SimpleNamespace(audio=audio)) for audio in (AUDIO_16K, AUDIO_44K)]
    with pytest.raises(WeightsError, match="16k one and the vocoder a 44k one"):
        RoundTripper(*parts)  # type: ignore[arg-type]
    vae, _ = load_part(EMBEDDED_FILE, "vae")
    vae.data_mean = torch.full_like(vae.data_mean, math.nan)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="NaN"):
        RoundTripper(vae, tripper._vocoder).measure(noise())  # type: ignore[arg-type]


def trip_of(name: str, mel_db: float) -> RoundTrip:
    return RoundTrip(name, f"{name}.wav", 0.0, mel_db, mel_db / 2, 1.0, -1.0, -2.0, -20.0, -21.0)


def test_worst_first_and_what_it_means() -> None:
    trips = [trip_of("a", 2.0), trip_of("b", 9.0), trip_of("d", 2.0), trip_of("c", 2.0)]
    assert [trip.id for trip in worst_first(trips)] == ["b", "a", "c", "d"]
    said = " ".join(sentences(trips))
    for words in (
        "4 clips differ from",
        "2.00 dB per mel bin (median; the VAE alone 1.00 dB)",
        "9.00 dB (b)",
        "1 of 4 lie above",
    ):
        assert words in said
    assert "None lies above" in " ".join(sentences(trips[:1] + trips[2:]))
    assert "1 clip differs from" in " ".join(sentences(trips[:1]))
    lines = table(trips, 2).splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["b", "a"]
    assert lines[3] == "and 2 more with smaller errors"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sound(tmp_path / "tone.flac", 2.5)
    write_clip(tmp_path / "clip.mp4", 1.2)
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    rows = [Row("tone#1", "tone.flac", "one"), Row("tone#2", "tone.flac", "two"), Row("clip", "clip.mp4", split="val")]
    write_manifest([*rows, Row("torn", "torn.wav"), Row("absent", "absent.wav")], tmp_path / "m.tsv")
    out = tmp_path / "out.json"
    command = ["check-data", str(tmp_path / "m.tsv"), "--duration", "1", "--device", "cpu"]
    assert main([*command, "--json", str(out)]) == 0
    said = capsys.readouterr()
    values = json.loads(out.read_text(encoding="utf-8"))
    assert values["weights"] == dict.fromkeys(("vae", "vocoder"), str(EMBEDDED_FILE))
    clips = values["clips"]
    assert sorted(clip["id"] for clip in clips) == ["clip", "tone#1@0", "tone#1@1.5"]
    errors = [clip["mel_db"] for clip in clips]
    assert errors == sorted(errors, reverse=True)
    assert values["median"]["mel_db"] == errors[1]
    assert all(clip["peak_db"] == pytest.approx(20 * math.log10(0.95), abs=1e-3) for clip in clips)
    assert [line.split()[-1] for line in said.out.splitlines()[1:4]] == [clip["id"] for clip in clips]
    assert said.out.splitlines()[-1] == str(out)
    for words in (
        "SMALL MADE-UP WORLD",
        "say nothing of your sounds",
        "no LoRA",
        "Left out: 2 bad rows: 1 missing, 1 unreadable",
    ):
        assert words in said.err

    files = ["--vae", str(EMBEDDED_FILE), "--vocoder", str(EMBEDDED_FILE)]
    assert main([*command, *files, "--split", "val"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert "SMALL MADE-UP WORLD" not in said.err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--vae", "x.safetensors"), 2, "--vae and --vocoder together"),
        (("--vae", "x", "--vocoder", "x", "--variant", "tiny"), 2, "neither --variant"),
        (("--vae", "x.safetensors", "--vocoder", "x.safetensors"), 4, "x.safetensors"),
        (("--limit", "0"), 2, "--limit 0"),
        (("--split", "other"), 2, "no row of that split"),
        ((), 2, "1 bad row: 1 missing"),
    ],
)
def test_wrong_wishes_are_refused(
    args: tuple[str, ...], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest([Row("absent", "absent.wav")], tmp_path / "m.tsv")
    assert main(["check-data", str(tmp_path / "m.tsv"), "--quiet", *args]) == code
    assert words in capsys.readouterr().err


def test_a_limit_draws_from_the_whole_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest((Row(f"{i:04d}#{n}", f"{i}.wav") for i in range(1000) for n in range(3)), path)
    drawn = chosen_rows(path, None, 100, Report())
    assert drawn == chosen_rows(path, None, 100, Report())
    numbers = [int(row.path.removesuffix(".wav")) for row in drawn]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 100
    assert sum(numbers) / 100 == pytest.approx(500, abs=100)
    assert len(chosen_rows(path, None, None, Report())) == 1000

"""The command line: main jobs, exit codes, interruption."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmaudio_core import __version__
from mmaudio_core.cli import main
from mmaudio_core.errors import MediaError
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.resample import load_audio

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_users_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MMAUDIO_WEIGHTS", str(tmp_path / "no weights"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    frames = (rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(50))
    return write_silent_video(frames, 25, tmp_path_factory.mktemp("video") / "noise.mp4")


def test_generate_a_video_with_sound(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mp4"
    assert main(["generate", str(video), "--duration", "1.5", "--steps", "2", "--output", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    for word in (
        "SMALL MADE-UP WORLD",
        "mmaudio download",
        "Variant tiny",
        "sampling",
        "total",
        "MiB",
        "1.500 s of sound at 16000 Hz",
    ):
        assert word in said.err
    samples, rate_hz = load_audio(out)
    assert rate_hz == 16_000
    assert abs(samples.shape[-1] - 24_000) <= 1024


@pytest.mark.parametrize("ending", ["flac", "wav"])
def test_generate_from_text(ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{ending}"
    assert main(["generate", "--prompt", "rain", "--duration", "1", "--steps", "1", "-o", str(out), "--quiet"]) == 0
    samples, rate_hz = load_audio(out)
    assert (samples.shape[-1], rate_hz) == (16_000, 16_000)


def test_generate_from_an_image_and_several_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    picture = tmp_path / "picture.png"
    Image.fromarray(np.full((40, 60, 3), 99, np.uint8)).save(picture)
    arguments = ["-p", "a", "-p", "b", "--count", "2", "--duration", "1", "--steps", "1", "-o", str(tmp_path / "x.wav")]
    assert main(["generate", str(picture), *arguments]) == 0
    written = capsys.readouterr().out.split()
    assert [Path(p).name for p in written] == ["x_1.wav", "x_2.wav", "x_3.wav", "x_4.wav"]
    assert all(Path(p).exists() for p in written)


def test_a_video_that_no_target_can_hold_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    frames = [Image.fromarray(np.full((40, 60, 3), shade, np.uint8)) for shade in range(0, 250, 10)]
    moving = tmp_path / "moving.gif"
    frames[0].save(moving, save_all=True, append_images=frames[1:], duration=100)
    assert main(["generate", str(moving), "-o", str(tmp_path / "out.mp4")]) == 3
    said = capsys.readouterr().err
    assert "a .mp4 file cannot hold" in said
    assert "Variant" not in said
    assert main(["generate", str(moving), "-o", str(tmp_path / "out.flac"), "--steps", "1", "--quiet"]) == 0


def test_the_sound_is_kept_where_the_video_cannot_be_written(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise MediaError("The disk is on fire.")

    monkeypatch.setattr("mmaudio_core.media.mux.mux_audio", broken)
    assert main(["generate", str(video), "-o", str(tmp_path / "out.mp4"), "--steps", "1", "--quiet"]) == 3
    assert f"on fire. The sound was saved as {tmp_path / 'out.flac'}." in capsys.readouterr().err
    assert load_audio(tmp_path / "out.flac")[0].shape[-1] == 2 * 16_000
    before = (tmp_path / "out.flac").read_bytes()
    assert main(["generate", str(video), "-o", str(tmp_path / "out.mp4"), "--steps", "1", "--quiet"]) == 3
    assert f"The sound was saved as {tmp_path / 'out_new1.flac'}." in capsys.readouterr().err
    assert (tmp_path / "out.flac").read_bytes() == before


def test_the_sound_is_kept_where_its_file_cannot_be_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [tmp_path / "out.wav", tmp_path / "both_1.wav"]
    for path in held:
        path.write_bytes(b"old")
    replace = os.replace

    def refused(source: Path, target: Path) -> None:
        if target in held:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    assert main(["generate", "-p", "x", "-o", str(tmp_path / "out.wav"), "--steps", "1", "--duration", "1", "--quiet"]) == 3
    said = capsys.readouterr().err
    assert f"Cannot write {tmp_path / 'out.wav'}" in said
    assert f"The sound was saved as {tmp_path / 'out_new1.wav'}." in said
    assert load_audio(tmp_path / "out_new1.wav")[0].shape[-1] == 16_000
    several = ["generate", "-p", "x", "-p", "y", "-o", str(tmp_path / "both.wav"), "--steps", "1", "--duration", "1", "--quiet"]
    assert main(several) == 3
    assert sorted(path.name for path in tmp_path.glob("both_new*")) == ["both_new1_1.wav", "both_new1_2.wav"]
    assert all(path.read_bytes() == b"old" for path in held)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["generate"], 2, "at least one"),
        (["generate", "--prompt", "x", "--steps", "0"], 2, "steps = 0"),
        (["generate", "--prompt", "x", "--duration", "0.1"], 2, "0.64"),
        (["generate", "--prompt", "x", "-o", "x.mp3"], 2, ".mp3"),
        (["generate", "--prompt", "x", "-o", "x.wav", "--original-audio", "keep"], 2, "only be kept in a video"),
        (["generate", "absent.mp4"], 3, "absent.mp4"),
        (["generate", "--prompt", "x", "--variant", "large_44k_v2"], 4, "mmaudio_large_44k_v2.pth"),
        (["inspect", "absent.safetensors"], 4, "absent.safetensors"),
        (["download", "small_16k", "--offline", "--folder", "."], 5, "mmaudio_small_16k.pth"),
        (["download", "huge"], 2, "huge"),
        (["download"], 2, "No variant"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_exit_codes(
    arguments: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    said = capsys.readouterr()
    assert words in said.err + said.out
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_wrong_words_exit_with_two() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["generate", "--colour", "red"])
    assert caught.value.code == 2


def test_version_is_fast_and_true() -> None:
    command = [sys.executable, "-m", "mmaudio_core", "--version"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == f"mmaudio-graph {__version__}"


def test_convert_and_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mmaudio_core.pipeline.files import EMBEDDED_FILE

    assert main(["inspect", str(EMBEDDED_FILE)]) == 0
    assert "flow network" in capsys.readouterr().out
    state = {n.removeprefix("vae."): t for n, t in load_file(EMBEDDED_FILE).items() if n.startswith("vae.")}
    torch.save(state, tmp_path / "some.pth")
    target = tmp_path / "vae.safetensors"
    assert main(["convert", str(tmp_path / "some.pth"), str(target), "--dtype", "float32"]) == 0
    assert "mel VAE" in capsys.readouterr().out
    assert main(["inspect", str(target)]) == 0
    assert "float32" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "some.pth"), str(target)]) == 4
    assert main(["convert", str(EMBEDDED_FILE), str(tmp_path / "x.safetensors")]) == 4
    assert "several parts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "code", "words"),
    [("torchaudio", 0, ""), ("open_clip", 6, "install open_clip_torch"), ("av", 6, "av")],
)
def test_a_broken_package_is_named_only_where_it_is_needed(package: str, code: int, words: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / f"{package}.py").write_text("raise ImportError('undefined symbol')")
    command = [sys.executable, "-m", "mmaudio_core", "generate", "-p", "rain", "--duration", "1", "--steps", "1"]
    run = subprocess.run(
        [*command, "-o", str(tmp_path / "x.wav")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(broken)},
        check=False,
    )
    assert run.returncode == code, run.stderr
    assert words in run.stderr
    assert (tmp_path / "x.wav").exists() == (code == 0)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_nothing(signum: int, code: int, tmp_path: Path, video: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mmaudio_core",
        "generate",
        str(video),
        "--steps",
        "100000",
        "-o",
        str(tmp_path / "out.mp4"),
    ]
    # A shell's background job ignores interrupts, and what it starts would too; what is handled here is default there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ})
    signal.signal(signal.SIGINT, before)
    assert process.stderr is not None
    for line in process.stderr:
        if "Variant" in line:
            break
    time.sleep(3)
    process.send_signal(signum)
    said = process.stderr.read()
    status = process.wait(60)
    # Python itself dies of the signal where an interrupt passed through exec of a text, as in imports; shells say 130 to both.
    assert (status if status >= 0 else 128 - status) == code, said
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("mmaudio")
    before = log.level, list(log.handlers)
    assert main(["bench", "--variants", "nonsense", "--device", "cpu", "--quiet"]) == 2
    assert (log.level, log.handlers) == before

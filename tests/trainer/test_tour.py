"""The documented page from a folder of clips to a sound, command by command, on clips made here and a real one."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaudio_core.cli import main as mmaudio
from mmaudio_core.media.audio_out import save_audio
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.mux import mux_audio
from mmaudio_core.media.resample import load_audio
from mmaudio_core.types import Audio
from trainer.cli import main as mmaudio_train

REAL = "F8Zt3mYlOqU_000094.mp4"
"""One is enough to see that real files pass."""
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "training.md"
MEDIA = Path(os.environ.get("MMAUDIO_MEDIA", ROOT.parent / "shared" / "media"))
RATE_HZ, SECONDS = 16_000, 1.5


def commands() -> list[list[str]]:
    """Those of the page's first chapter."""
    chapter = PAGE.read_text(encoding="utf-8").split("## Everything once")[1].split("\n## ")[0]
    block = chapter.split("```")[1]
    return [shlex.split(line) for line in block.strip().splitlines()]


def fill(folder: Path) -> None:
    """Six videos and three recordings of noises and tones, with captions, and one file that is nothing."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(int(RATE_HZ * SECONDS)) / RATE_HZ
    for i in range(9):
        tone = torch.sin(2 * torch.pi * (200 + 90 * i) * time) + 0.2 * torch.randn(len(time), generator=generator)
        sound = Audio(0.3 * tone[None, None], RATE_HZ)
        name = f"clip{i}"
        if i < 6:
            shade = np.arange(38, dtype=np.uint8)
            write_silent_video((np.full((64, 96, 3), 4 * k + i, np.uint8) for k in shade), 25, folder / "silent.mp4")
            mux_audio(folder / "silent.mp4", sound, folder / f"{name}.mp4")
        else:
            save_audio(sound, folder / f"{name}.flac")
        (folder / f"{name}.txt").write_text(f"a tone of {200 + 90 * i} Hz", encoding="utf-8")
    (folder / "silent.mp4").unlink()
    (folder / "broken.mp4").write_bytes(b"not a video")
    if (MEDIA / REAL).is_file():
        shutil.copy(MEDIA / REAL, folder / REAL)


def test_the_page_from_clips_to_a_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_in = tmp_path / "clips"
    fill_in.mkdir()
    fill(fill_in)
    monkeypatch.chdir(tmp_path)
    programs = {"mmaudio": mmaudio, "mmaudio-train": mmaudio_train}
    said = commands()
    assert [c[0] for c in said] == ["mmaudio-train"] * 5 + ["mmaudio"]
    for program, *arguments in said:
        assert programs[program]([*arguments, "--quiet"]) == 0, arguments
    assert "broken" in (tmp_path / "data.bad.jsonl").read_text(encoding="utf-8")
    assert list((tmp_path / "runs/smoke/previews").rglob("*.flac"))
    samples, rate_hz = load_audio(tmp_path / "rain.flac")
    assert rate_hz == RATE_HZ
    assert len(samples) == RATE_HZ
    assert samples.abs().max() > 0

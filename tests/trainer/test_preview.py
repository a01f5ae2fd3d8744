"""What previews give the network to make sound of, and what becomes of one that fails."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from mmaudio_core.errors import MediaError
from mmaudio_core.types import Audio
from trainer.config.schema import PreviewConfig
from trainer.data.batch import Batch
from trainer.data.index import Index
from trainer.engine.distributed import Ranks
from trainer.flow import preview
from trainer.flow.fixed import fixed_samples
from trainer.flow.log import Log
from trainer.flow.preview import Preview

from .helpers_c import ONE, made_up_shards

SECOND = Ranks(1, 2, 0, torch.device("cpu"))
"""Samples and does not decode."""


class Still(torch.nn.Module):
    """A velocity of zero everywhere; notes which inputs it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SimpleNamespace(unnormalize=lambda x: x)
        self.seen: list[Batch] = []

    def forward(self, batch: Batch, at: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        self.seen.append(batch)
        return torch.zeros_like(at[0])


def test_a_preview_that_fails_is_said_and_its_reference_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clips = fixed_samples(Index.load(made_up_shards(tmp_path, 2, duration_s=0.8)), 2)
    heard: list[str] = []
    log = cast(Log, SimpleNamespace(sound=lambda tag, *_: heard.append(tag)))
    folder = tmp_path / "previews"
    previews = Preview(PreviewConfig(cfg_strength=1.0, steps=1, videos=False), clips, folder, 0, ONE, log)
    save = preview.save_audio

    def full(sound: Audio, path: Path) -> Path:
        if path.name.startswith("02"):
            raise MediaError("The disk is full.")
        return save(sound, path)

    monkeypatch.setattr(preview, "save_audio", full)
    with caplog.at_level(logging.WARNING, "mmaudio"):
        previews.write(Still(), 5)
    assert "The preview of step 5 is not complete: The disk is full." in caplog.text
    monkeypatch.setattr(preview, "save_audio", save)
    for step in (6, 7):
        previews.write(Still(), step)
    assert heard == ["reference/01", *["reference/01", "reference/02"], *["preview/01", "preview/02"] * 2]
    made = sorted(str(path.relative_to(folder).parent) for path in folder.rglob("*.flac"))
    assert made == ["reference"] * 2 + ["step-00000006"] * 2 + ["step-00000007"] * 2


@pytest.mark.parametrize("captions", ["all", "video", "sound", "none"])
def test_text_is_left_out_as_in_training(captions: str, tmp_path: Path) -> None:
    clips = fixed_samples(Index.load(made_up_shards(tmp_path, 12, duration_s=0.8)), 12)
    stored = clips.batch(range(12))
    both = stored.has_text & stored.has_video
    assert both.any()
    assert (stored.has_text & ~stored.has_video).any()
    module, log = Still(), cast(Log, None)  # only the first rank writes
    Preview(PreviewConfig(cfg_strength=4.5, steps=2), clips, tmp_path, 0, SECOND, log, captions).sample(module)
    wanted = {"all": stored.has_text, "video": both, "sound": stored.has_text & ~both, "none": torch.zeros_like(both)}
    with_text = [batch.has_text for batch in module.seen if batch.has_video.any()]
    assert len(with_text) == 2
    assert all(torch.equal(has, wanted[captions]) for has in with_text)


@pytest.mark.parametrize("error", [MediaError("no room"), OSError(28, "no room")])
def test_what_cannot_be_written_ends_no_run(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = fixed_samples(Index.load(made_up_shards(tmp_path, 4, duration_s=0.8)), 1)
    said: list[str] = []

    def failing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(preview.log, "warning", lambda text, *values: said.append(text % values))
    monkeypatch.setattr(preview, "save_audio", failing)
    made = Preview(PreviewConfig(clips=1, steps=1), clips, tmp_path / "previews", 0, ONE, cast(Log, None))
    made.write(Still(), 7)
    assert said[-1].startswith("The preview of step 7 is not complete: ")
    assert "no room" in said[-1]
    monkeypatch.setattr(preview, "save_audio", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a fault of ours is one
        made.write(Still(), 8)

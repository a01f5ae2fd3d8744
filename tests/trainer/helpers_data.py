"""Made-up shards for the tests of data and extraction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mmaudio_core.spec.audio import AUDIO_16K
from mmaudio_core.weights.inspect import file_digest
from trainer.data.crops import Kind
from trainer.data.index import INDEX_NAME, Index, index_text, shard_info
from trainer.data.shards import Record, Sample, Widths, write_shard

WIDTHS = Widths(latent=(4, 3), clip=(2, 5), sync=(8, 6), text=(7, 4))


def made_up_sample(number: int, kind: Kind = "av", widths: Widths = WIDTHS) -> Sample:
    """A sample whose values are drawn by its number; every third one has no caption."""
    generator = torch.Generator().manual_seed(number)

    def drawn(shape: tuple[int, int], dtype: torch.dtype = torch.float16) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    caption = "" if number % 3 == 2 else f"sound {number}"
    return Sample(
        f"clip{number}",
        kind,
        caption,
        drawn(widths.latent, torch.float32),
        drawn(widths.latent, torch.float32).abs(),
        drawn(widths.clip) if kind == "av" else None,
        drawn(widths.sync) if kind == "av" else None,
        drawn(widths.text) if caption else None,
    )


def record_of(sample: Sample) -> Record:
    return Record(sample.id, sample.kind, sample.caption, f"{sample.id}.mp4", 0.0, 8.0)


def made_up_dataset(folder: Path, shards: Sequence[Sequence[Kind]], widths: Widths = WIDTHS) -> Index:
    """Shards with samples of these kinds, numbered on, and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    infos, number = [], 0
    for place, kinds in enumerate(shards):
        samples = [made_up_sample(number + i, kind, widths) for i, kind in enumerate(kinds)]
        number += len(samples)
        path = folder / f"shard-{place:06d}.safetensors"
        write_shard(path, samples, [record_of(sample) for sample in samples])
        infos.append(shard_info(path, file_digest(path, "sha256"))[0])
    text = index_text(infos, AUDIO_16K, 8.0, widths, {"vae": "0" * 64}, {})
    (folder / INDEX_NAME).write_text(text, encoding="utf-8")
    return Index.load(folder)

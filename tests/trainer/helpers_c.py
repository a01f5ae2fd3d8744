"""Made-up batches and networks for the tests of the flow network's training."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmaudio_core.spec.audio import AUDIO_SPECS
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.transformer.model import FlowNetwork
from trainer.data.batch import Batch
from trainer.data.crops import Kind
from trainer.data.index import INDEX_NAME, index_text, shard_info
from trainer.data.shards import Record, Sample, Widths, write_shard
from trainer.engine.distributed import Ranks

ONE = Ranks(0, 1, 0, torch.device("cpu"))
TINY = FlowSpec(20, 128, 2, joint_blocks=2, audio_blocks=1, clip_dim=24, sync_dim=16, text_dim=12, text_tokens=7)
TINY_V2 = replace(TINY, v2=True)


def made_up_network(spec: FlowSpec, seed: int = 0) -> FlowNetwork:
    """Every parameter away from zero and one, so that every input reaches the output and every gradient is there."""
    network = FlowNetwork(spec)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            if name == "latent_std" or name.endswith("norm.weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.ndim > 1 and "empty" not in name:
                parameter.copy_(noise / fan_in**0.5)
            else:
                parameter.copy_(0.3 * noise)
    return network


def made_up_batch(spec: FlowSpec, latent: int, clip: int, sync: int, count: int, seed: int = 0, first: int = 0) -> Batch:
    """Samples of L, V, S tokens; the second lacks video and the third text, where there are as many."""
    g = torch.Generator().manual_seed(seed)

    def normal(tokens: int, width: int) -> torch.Tensor:
        return torch.randn(count, tokens, width, generator=g)

    places = torch.arange(count)
    has_video, has_text = places % 4 != 1, places % 4 != 2
    feature = {"clip": normal(clip, spec.clip_dim), "sync": normal(sync, spec.sync_dim)}
    return Batch(
        ids=tuple(f"clip {first + i}" for i in range(count)),
        positions=tuple(range(first, first + count)),
        latent_mean=normal(latent, spec.latent_dim),
        latent_std=normal(latent, spec.latent_dim).abs() * 0.1,
        clip=(feature["clip"] * has_video[:, None, None]).half(),
        sync=(feature["sync"] * has_video[:, None, None]).half(),
        text=(normal(spec.text_tokens, spec.text_dim) * has_text[:, None, None]).half(),
        has_video=has_video,
        has_text=has_text,
    )


def made_up_samples(count: int, duration_s: float = 2.0, seed: int = 0, path: str = "none.mp4") -> list[tuple[Sample, Record]]:
    """Smooth latents and random features, as the embedded model's encoders would give them; each third is a recording."""
    lengths = sequence_lengths(duration_s, AUDIO_SPECS["16k"])
    found = []
    for i in range(count):
        g = torch.Generator().manual_seed(1000 * seed + i)
        kind: Kind = "at" if i % 3 == 2 else "av"
        phase, rate = torch.rand(20, generator=g), 1 + 3 * torch.rand(20, generator=g)
        times = torch.linspace(0, 1, lengths.latent)[:, None]
        mean = 2 * torch.sin(6.28 * (times * rate + phase)) + 0.5
        sample = Sample(
            id=f"clip-{seed}-{i}",
            kind=kind,
            caption=f"sound {i}",
            latent_mean=mean,
            latent_std=torch.full_like(mean, 0.05),
            clip=_features(lengths.clip, 64, g) if kind == "av" else None,
            sync=_features(lengths.sync, 128, g) * 8 if kind == "av" else None,
            text=_features(77, 64, g),
        )
        found.append((sample, Record(sample.id, kind, sample.caption, path, 0.0, duration_s)))
    return found


def _features(tokens: int, width: int, g: torch.Generator) -> torch.Tensor:
    """Unit vectors that are much alike, as those of one video's frames or one text's tokens are."""
    own = torch.randn(1, width, generator=g) + 0.5 * torch.randn(tokens, width, generator=g)
    return torch.nn.functional.normalize(own, dim=-1).half()


def made_up_shards(folder: Path, count: int, per_shard: int = 4, duration_s: float = 2.0, **options: Any) -> Path:
    """Shards with an index in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    lengths = sequence_lengths(duration_s, AUDIO_SPECS["16k"])
    made = made_up_samples(count, duration_s, **options)
    listed = []
    for first in range(0, count, per_shard):
        part = made[first : first + per_shard]
        path = folder / f"shard-{first // per_shard:05d}.safetensors"
        write_shard(path, [sample for sample, _ in part], [record for _, record in part])
        listed.append(shard_info(path, hashlib.sha256(path.read_bytes()).hexdigest())[0])
    widths = Widths((lengths.latent, 20), (lengths.clip, 64), (lengths.sync, 128), (77, 64))
    text = index_text(listed, AUDIO_SPECS["16k"], duration_s, widths, {"vae": "made up"}, {})
    (folder / INDEX_NAME).write_text(text, encoding="utf-8")
    return folder

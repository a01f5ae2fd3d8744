"""Samples of one step, stacked: what the objective takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from mmaudio_core.errors import InputError

from .shards import Sample, Widths


@dataclass(frozen=True)
class Batch:
    """Samples of this rank for one step, or for one micro-step of an accumulated one.

    Missing inputs are zeros, and their mask is False. Features keep the 16 bits they are stored in.

    ids: of each sample, for reports.
    positions: the place of each sample in the global batch; random numbers are drawn by it.
    latent_mean, latent_std: float32 (B, L, C), raw VAE latents.
    clip, sync, text: float16 (B, V, clip width), (B, S, sync width), (B, T, text width).
    has_video, has_text: bool (B,); CLIP and Synchformer features are there together or not at all.
    """

    ids: tuple[str, ...]
    positions: tuple[int, ...]
    latent_mean: Tensor
    latent_std: Tensor
    clip: Tensor
    sync: Tensor
    text: Tensor
    has_video: Tensor
    has_text: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Batch:
        """The same with its tensors on ``device``; copies from pinned memory do not wait."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same in page-locked memory, from which a CUDA device reads fast; needs such a device."""
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


def collate(samples: Sequence[Sample], positions: Sequence[int], widths: Widths) -> Batch:
    """Stacks ``samples``, which stand at ``positions`` of the global batch; the result shares no memory with them.

    widths: shapes of one sample's inputs, for those that are missing.

    Raises:
        InputError: for no samples at all, or a sample of other shapes.
    """
    if not samples:
        raise InputError("A batch of no samples was asked for; one or more are needed.")
    for sample in samples:
        _check(sample, widths)

    def stacked(name: str) -> Tensor:
        shape, dtype = getattr(widths, name), torch.float16
        out = torch.zeros((len(samples), *shape), dtype=dtype)
        for row, sample in zip(out, samples, strict=True):
            value = getattr(sample, name)
            if value is not None:
                row.copy_(value)
        return out

    return Batch(
        ids=tuple(sample.id for sample in samples),
        positions=tuple(positions),
        latent_mean=torch.stack([sample.latent_mean for sample in samples]),
        latent_std=torch.stack([sample.latent_std for sample in samples]),
        clip=stacked("clip"),
        sync=stacked("sync"),
        text=stacked("text"),
        has_video=torch.tensor([sample.clip is not None for sample in samples]),
        has_text=torch.tensor([sample.text is not None for sample in samples]),
    )


def _check(sample: Sample, widths: Widths) -> None:
    wanted = {"latent_mean": widths.latent, "latent_std": widths.latent}
    wanted |= {name: getattr(widths, name) for name in ("clip", "sync", "text")}
    for name, shape in wanted.items():
        value = getattr(sample, name)
        if value is not None and tuple(value.shape) != tuple(shape):
            raise InputError(
                f"The sample {sample.id} has {name} of shape {tuple(value.shape)} where the index says {tuple(shape)}; "
                "extract all data with the same encoders and duration."
            )

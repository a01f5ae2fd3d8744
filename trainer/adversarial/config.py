"""Everything that training of a VAE or vocoder can be told; ``trainer/configs/adversarial/*.toml`` explains each key.

``every`` = 0 means never.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from mmaudio_core.errors import InputError
from mmaudio_core.spec.audio import LATENT_STRIDE
from mmaudio_core.spec.model import VAES, VOCODERS, VAESpec, VocoderSpec

from ..config.bounds import at_least, check_betas, check_named, check_pieces
from ..config.load import load_config, preset_or_path

PRESETS = Path(__file__).resolve().parents[1] / "configs" / "adversarial"
T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """manifest: recordings, and videos whose sound is used. segment_frames: mel frames of one training segment.

    held_out_split: rows that are only listened to and measured; "" takes those of the training. cache_mb: decoded sound kept
    in memory.
    """

    manifest: str = ""
    split: str = "train"
    held_out_split: str = ""
    segment_frames: int = 128
    cache_mb: int = 2048
    workers: int = 4


@dataclass(frozen=True)
class OptimConfig:
    """AdamW for both sides. The rate rises over ``warmup_steps``, is multiplied by ``decay_per_step`` after each step, and
    falls with 1 / sqrt(step) from ``rsqrt_after`` steps on, as in arXiv 2312.02696 (0: it does not).
    """

    lr: float = 1e-4
    discriminator_lr: float = 1e-4
    betas: tuple[float, ...] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 0
    decay_per_step: float = 1.0
    rsqrt_after: int = 0
    clip_norm: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """folder: checkpoints, logs and the resulting file. accumulation: pieces in which each rank works through its share.

    licence: of the result, for its metadata; "" is that of the file it started from.
    """

    folder: str = ""
    steps: int = 300_000
    batch: int = 32
    accumulation: int = 1
    seed: int = 0
    device: str = "auto"
    licence: str = ""


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 5000
    keep: int = 2


@dataclass(frozen=True)
class LogConfig:
    """listen_s: seconds of each piece of sound in the log."""

    every: int = 100
    listen_every: int = 5000
    listen_segments: int = 4
    listen_s: float = 4.0


@dataclass(frozen=True)
class VAETrainConfig(TrainConfig):
    """precision: "bf16" is autocast, and weights stay float32."""

    precision: Literal["float32", "bf16"] = "float32"


@dataclass(frozen=True)
class VAELogConfig(LogConfig):
    """vocoder: a file, through which the VAE's mel becomes sound; "" leaves pictures alone."""

    vocoder: str = ""


@dataclass(frozen=True)
class VAEModelConfig:
    """width 0 is the published one. base: a VAE's file to start from; "" starts from random weights.

    statistics_segments: segments that mean and std of the mel bins are taken from at the start; a base brings its own.
    """

    audio: Literal["16k", "44k"] = "44k"
    width: int = 0
    base: str = ""
    statistics_segments: int = 4096


@dataclass(frozen=True)
class VAELossConfig:
    """Weights of the parts of the generator's loss; ``learned_variance`` divides the reconstruction by a trained variance.

    loud: what a value of the normalised mel counts more for each standard deviation that it lies above the mean.
    """

    reconstruction: float = 1.0
    loud: float = 0.0
    learned_variance: bool = False
    kl: float = 1e-6
    adversarial: float = 0.1
    adversarial_from: int = 20_001


@dataclass(frozen=True)
class VAEDiscriminatorConfig:
    channels: int = 64
    layers: int = 3


@dataclass(frozen=True)
class VocoderModelConfig:
    """width 0, rates [] and block_kernels [] are the published ones; the product of the rates is the hop.

    base: a vocoder's file to start from; "" starts from random weights.
    """

    audio: Literal["16k", "44k"] = "44k"
    width: int = 0
    rates: tuple[int, ...] = ()
    block_kernels: tuple[int, ...] = ()
    base: str = ""


@dataclass(frozen=True)
class VocoderLossConfig:
    """mel_windows: samples of the windows of further mel spectrograms that are compared, beside the vocoder's own. loud: what a
    value counts more for each standard deviation that it lies above its segment's mean.
    """

    mel: float = 45.0
    mel_windows: tuple[int, ...] = ()
    loud: float = 0.0
    adversarial: float = 1.0
    features: float = 2.0
    adversarial_from: int = 1


@dataclass(frozen=True)
class VocoderDiscriminatorConfig:
    """channels: of the first layer. windows: samples of the windows of the multi-resolution discriminator."""

    channels: int = 32
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    windows: tuple[int, ...] = (1024, 2048, 512)


@dataclass(frozen=True)
class VAEConfig:
    """A training of the mel VAE."""

    model: VAEModelConfig = field(default_factory=VAEModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: VAELossConfig = field(default_factory=VAELossConfig)
    discriminator: VAEDiscriminatorConfig = field(default_factory=VAEDiscriminatorConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: VAETrainConfig = field(default_factory=VAETrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: VAELogConfig = field(default_factory=VAELogConfig)


@dataclass(frozen=True)
class VocoderConfig:
    """A training of the vocoder."""

    model: VocoderModelConfig = field(default_factory=VocoderModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: VocoderLossConfig = field(default_factory=VocoderLossConfig)
    discriminator: VocoderDiscriminatorConfig = field(default_factory=VocoderDiscriminatorConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)


AnyConfig = VAEConfig | VocoderConfig


def preset_names(kind: type[AnyConfig]) -> list[str]:
    """Our files for this kind of training, by the beginning of their names."""
    return sorted(path.stem for path in PRESETS.glob("vae_*.toml" if kind is VAEConfig else "vocoder_*.toml"))


def load(kind: type[T], source: str, overrides: Sequence[str] = ()) -> T:
    """``VAEConfig`` or ``VocoderConfig`` from a TOML file, a run's folder or a preset's name; checked.

    Raises:
        InputError: no such file, no TOML, an unknown key, a value of a wrong type or out of range.
    """
    names = preset_names(kind)  # type: ignore[arg-type]
    return load_config(kind, preset_or_path(source, PRESETS, names), overrides, check)


def check(config: Any) -> None:
    """Raises InputError for values out of range; the sentence names the keys."""
    check_named(config.data.manifest, config.train.folder)
    positive = {
        "data": ("segment_frames", "workers"),
        "train": ("steps", "batch", "accumulation"),
        "checkpoint": ("keep",),
        "log": ("every", "listen_segments", "listen_s"),
        "discriminator": ("channels",),
        "optim": ("lr", "discriminator_lr"),
    }
    for section, keys in positive.items():
        for key in keys:
            if not getattr(getattr(config, section), key) > 0:
                raise InputError(f"{section}.{key} is {getattr(getattr(config, section), key):g}; more than 0 is needed.")
    at_least(config.data, "data", 0, ("cache_mb",))
    at_least(config.optim, "optim", 0, ("weight_decay", "warmup_steps", "rsqrt_after", "clip_norm"))
    at_least(config.checkpoint, "checkpoint", 0, ("every",))
    at_least(config.log, "log", 0, ("listen_every",))
    if config.data.segment_frames % LATENT_STRIDE:
        raise InputError(f"data.segment_frames is {config.data.segment_frames}; an even number is needed.")
    check_pieces(config.train.batch, config.train.accumulation)
    check_betas(config.optim.betas)
    if not 0 < config.optim.decay_per_step <= 1:
        raise InputError(f"optim.decay_per_step is {config.optim.decay_per_step:g}; above 0 and up to 1 is needed.")
    if isinstance(config, VAEConfig):
        at_least(config.model, "model", 1, ("statistics_segments",))
    if not config.model.base:
        _ = vae_spec(config.model) if isinstance(config, VAEConfig) else vocoder_spec(config.model)


def vae_spec(model: VAEModelConfig) -> VAESpec:
    """The VAE that the configuration describes."""
    published = VAES[model.audio]
    return VAESpec(published.mel_bins, published.latent_dim, model.width or published.width)


def vocoder_spec(model: VocoderModelConfig) -> VocoderSpec:
    """The vocoder that the configuration describes."""
    published = VOCODERS[model.audio]
    rates = model.rates or published.rates
    if math.prod(rates) != published.audio.hop_samples:
        raise InputError(f"model.rates is {list(rates)}; their product must be the hop, {published.audio.hop_samples} samples.")
    return replace(
        published,
        width=model.width or published.width,
        rates=rates,
        kernels=tuple(2 * rate for rate in rates),
        block_kernels=model.block_kernels or published.block_kernels,
    )

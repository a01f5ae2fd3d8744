"""Everything a training run can be told, as frozen values; ``trainer/configs/*.toml`` explains each key.

``every`` = 0 means never. Defaults are the paper's (arXiv 2412.15322, section 4 and appendix); those that it does not name are
ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class SizesConfig:
    """Sizes of a network of your own, for ``variant = "custom"``; the names are those of ``FlowSpec``."""

    latent_dim: int = 20
    heads: int = 1
    joint_blocks: int = 1
    audio_blocks: int = 1
    v2: bool = False
    clip_dim: int = 1024
    sync_dim: int = 768
    text_dim: int = 1024
    text_tokens: int = 77
    sync: Literal["frames", "visual", "none"] = "frames"
    rope: Literal["aligned", "plain", "none"] = "aligned"
    mlp: Literal["conv", "linear"] = "conv"
    sync_timing: Literal["stretched", "steady"] = "stretched"


@dataclass(frozen=True)
class ModelConfig:
    """variant: a published size, "custom" (see ``sizes``), or "" (that of ``base``).

    base: a flow network's file to start from; "" starts from random weights. text_encoder: CLIP's file, asked for the feature
    of the empty text where there is no base; "" means the encoder of the embedded model. empty: what stands for a missing
    input: learned tokens and the text encoder's feature of the empty text ("published"), learned ones for text too ("learned"),
    or "zeros"; the last two are the paper's ablations. standardise: a new network begins with the features' mean and spread
    taken off in its first layers, which the paper does not do.
    """

    variant: str = "small_16k"
    base: str = ""
    text_encoder: str = ""
    empty: Literal["published", "learned", "zeros"] = "published"
    standardise: bool = False
    sizes: SizesConfig = field(default_factory=SizesConfig)


@dataclass(frozen=True)
class DataConfig:
    """train, validation: folders or URLs of shards with their index; no validation means without.

    av_repeat: how often a sample with video comes for one without. window_shards: shards that each of the order's lanes mixes
    with each other and holds. statistics_samples: samples that the latent statistics are taken from, about; 0 means all.
    verify: compare the hash of every shard that is read.

    The paper's ablations: sound_share: share of the samples without video that is used. captions: whose captions are used: of
    "all" samples, of those with "video", of those without ("sound"), of "none".
    """

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    av_repeat: int = 1
    window_shards: int = 4
    statistics_samples: int = 0
    verify: bool = False
    sound_share: float = 1.0
    captions: Literal["all", "video", "sound", "none"] = "all"


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule. decay_at: shares of all steps at which the rate is multiplied by ``decay_by``."""

    lr: float = 1e-4
    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-6
    weight_decay: float = 1e-6
    warmup_steps: int = 1000
    decay_at: tuple[float, ...] = (0.8, 0.9)
    decay_by: float = 0.1
    fused: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """folder: where the run is kept. global_batch: samples of an optimiser step over all ranks; ``accumulation`` pieces a rank.

    clip_norm: largest gradient norm; 0 means no limit. device: "auto", "cpu", "cuda", ...
    """

    folder: str = ""
    steps: int = 300_000
    global_batch: int = 512
    accumulation: int = 1
    precision: Literal["bf16", "float32"] = "bf16"
    compile: bool = False
    checkpointing: bool = False
    clip_norm: float = 1.0
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class DropoutConfig:
    """Shares of samples whose video or text is left out. together: CLIP and sync features go together ("auto": in v1)."""

    video: float = 0.1
    text: float = 0.1
    together: Literal["auto", "always", "never"] = "auto"


@dataclass(frozen=True)
class TimesConfig:
    """t = sigmoid(N(mean, std)) (arXiv 2403.03206); the published 0 and 1 seldom ask what comes out of noise alone."""

    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class EMAConfig:
    """sigma_rels: relative widths of the tracked averages; snapshots of them make any other width after the run."""

    sigma_rels: tuple[float, ...] = (0.05, 0.10)
    snapshot_every: int = 10_000
    snapshot_dtype: Literal["float32", "float16"] = "float16"


@dataclass(frozen=True)
class CheckpointConfig:
    """every: steps between checkpoints. keep: how many of the last ones stay."""

    every: int = 2_000
    keep: int = 2


@dataclass(frozen=True)
class HealthConfig:
    """What follows a step whose loss or gradient is not finite or far too large; the fields of ``engine.health.HealthRule``."""

    on_bad: Literal["skip", "stop"] = "skip"
    max_loss_factor: float = 10.0
    max_gradient_norm: float = 0.0
    max_consecutive_skips: int = 10


@dataclass(frozen=True)
class ValidationConfig:
    """samples: how many are measured, of the held-out and of the training data. warn_ratio: see ``flow/validate.py``."""

    every: int = 2_000
    samples: int = 64
    batch: int = 16
    warn_ratio: float = 0.1


@dataclass(frozen=True)
class PreviewConfig:
    """Sounds of the first ``clips`` held-out samples, made in ``steps`` Euler steps with guidance ``cfg_strength``.

    vae, vocoder: files; "" means the embedded model's, which know a small made-up world. videos: also the clip's video with
    the new sound. media_root: the folder that relative paths of the manifest start from; "" means that of the process.
    """

    every: int = 5_000
    clips: int = 4
    steps: int = 25
    cfg_strength: float = 4.5
    vae: str = ""
    vocoder: str = ""
    videos: bool = True
    media_root: str = ""


@dataclass(frozen=True)
class LogConfig:
    """every: steps between lines of log.jsonl. wandb_project: also sends what TensorBoard gets to that project."""

    every: int = 10
    wandb_project: str = ""


@dataclass(frozen=True)
class LoraConfig:
    """rank 0 trains the whole network; targets: patterns of module names, as in ``fnmatch``."""

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = ("*.attn.qkv", "*.linear1", "*.ffn.w1", "*.ffn.w2", "*.ffn.w3")
    dropout: float = 0.0


@dataclass(frozen=True)
class ParallelConfig:
    """mode: "ddp" keeps the whole network on every rank, "fsdp" spreads it over them."""

    mode: Literal["ddp", "fsdp"] = "ddp"


@dataclass(frozen=True)
class RunConfig:
    """A whole run: one section of the file each."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    times: TimesConfig = field(default_factory=TimesConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    log: LogConfig = field(default_factory=LogConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

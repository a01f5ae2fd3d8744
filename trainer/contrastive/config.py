"""Everything that training of a CLIP or Synchformer can be told; ``trainer/configs/contrastive/*.toml`` explains each key.

``every`` = 0 means never.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mmaudio_core.errors import InputError
from mmaudio_core.spec.model import CLIPSpec, SynchformerSpec
from mmaudio_core.spec.timing import MIN_DURATION_S, SYNC_SEGMENT_FRAMES

from ..config.bounds import at_least, check_betas, check_named
from ..config.load import load_config, preset_or_path

PRESETS = Path(__file__).resolve().parents[1] / "configs" / "contrastive"
T = TypeVar("T")


@dataclass(frozen=True)
class AugmentConfig:
    """One draw a clip, so that nothing changes in time. flip: mirror half of the clips. shift: largest shift as a share of the
    side. light: largest change of contrast and brightness.
    """

    flip: bool = True
    shift: float = 0.05
    light: float = 0.1


@dataclass(frozen=True)
class DataConfig:
    """manifest: videos. held_out_split: rows that are only measured; "" takes those of the training. duration_s: seconds that
    are used of each, from its start on. workers: threads that decode.
    """

    manifest: str = ""
    split: str = "train"
    held_out_split: str = ""
    duration_s: float = 8.0
    workers: int = 2


@dataclass(frozen=True)
class OptimConfig:
    """AdamW. The rate rises over ``warmup_steps`` and falls to nothing at the last step along a cosine (arXiv 2103.00020)."""

    lr: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.98)
    weight_decay: float = 0.05
    warmup_steps: int = 100
    clip_norm: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """folder: checkpoints, logs and the resulting file. batch: clips of a step.

    licence: of the result, for its metadata; "" is that of the file it started from.
    """

    folder: str = ""
    steps: int = 10_000
    batch: int = 32
    seed: int = 0
    device: str = "auto"
    licence: str = ""


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 250
    keep: int = 2


@dataclass(frozen=True)
class LogConfig:
    """measure_clips: held-out clips that retrieval is measured on."""

    every: int = 10
    measure_every: int = 250
    measure_clips: int = 64


@dataclass(frozen=True)
class ClipModelConfig:
    """Sizes as in ``CLIPSpec``. base: a CLIP's file to start from, whose sizes are then taken; "" starts from random ones."""

    embed_dim: int = 64
    image_size: int = 224
    vision_layers: int = 3
    vision_width: int = 128
    vision_head_width: int = 64
    patch: int = 32
    text_width: int = 64
    text_heads: int = 1
    text_layers: int = 2
    quick_gelu: bool = True
    base: str = ""


@dataclass(frozen=True)
class ClipDataConfig(DataConfig):
    """frames: of each clip in a step; the mean of their features is contrasted. kept_frames: of each clip, drawn once, of
    which the frames are drawn. cache_mb: of those, kept in memory.
    """

    frames: int = 1
    kept_frames: int = 4
    cache_mb: int = 2048


@dataclass(frozen=True)
class ClipLossConfig:
    """temperature: at the beginning; it is trained. tokens: weight of the contrast of the mean of a text's token features."""

    temperature: float = 0.07
    tokens: float = 0.5


@dataclass(frozen=True)
class SyncModelConfig:
    """Sizes as in ``SynchformerSpec``. base: a Synchformer's file to start from, whose sizes are then taken."""

    width: int = 128
    heads: int = 2
    blocks: int = 3
    mlp_width: int = 256
    patch: int = 16
    grid: int = 7
    base: str = ""


@dataclass(frozen=True)
class SyncDataConfig(DataConfig):
    """segments: of each clip in a step. kept_segments: of each clip, drawn once, of which those are drawn; 0 reads the clip
    anew each time and draws from all of it. cache_mb: of those, kept in memory.
    """

    segments: int = 4
    kept_segments: int = 0
    cache_mb: int = 2048


@dataclass(frozen=True)
class SyncLossConfig:
    """segments, tokens: weights of the contrasts of segments and of the 80 ms in a segment; outline: that of the squared error
    of a rough log-mel foretold from what is seen; 0 leaves one out.

    temperature: at the beginning; both are trained. quiet_db: what is this far below the clip's loudest 80 ms is not heard.
    """

    segments: float = 1.0
    tokens: float = 1.0
    outline: float = 0.0
    temperature: float = 0.1
    quiet_db: float = -30.0


@dataclass(frozen=True)
class ClipConfig:
    """A training of CLIP."""

    model: ClipModelConfig = field(default_factory=ClipModelConfig)
    data: ClipDataConfig = field(default_factory=ClipDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: ClipLossConfig = field(default_factory=ClipLossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)


@dataclass(frozen=True)
class SyncConfig:
    """A training of Synchformer's visual tower."""

    model: SyncModelConfig = field(default_factory=SyncModelConfig)
    data: SyncDataConfig = field(default_factory=SyncDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: SyncLossConfig = field(default_factory=SyncLossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)


AnyConfig = ClipConfig | SyncConfig


def preset_names(kind: type[AnyConfig]) -> list[str]:
    """Our files for this kind of training, by the beginning of their names."""
    return sorted(path.stem for path in PRESETS.glob("clip_*.toml" if kind is ClipConfig else "sync_*.toml"))


def load(kind: type[T], source: str, overrides: Sequence[str] = ()) -> T:
    """``ClipConfig`` or ``SyncConfig`` from a TOML file, a run's folder or a preset's name; checked.

    Raises:
        InputError: no such file, no TOML, an unknown key, a value of a wrong type or out of range.
    """
    names = preset_names(kind)  # type: ignore[arg-type]
    return load_config(kind, preset_or_path(source, PRESETS, names), overrides, check)


def check(config: Any) -> None:
    """Raises InputError for values out of range, SpecError for sizes of no model; the sentence names the keys."""
    check_named(config.data.manifest, config.train.folder)
    least: dict[str, dict[str, float]] = {
        "data": {"workers": 1, "duration_s": MIN_DURATION_S},
        "train": {"steps": 1, "batch": 2},
        "checkpoint": {"keep": 1, "every": 0},
        "log": {"every": 1, "measure_every": 0, "measure_clips": 2},
        "augment": {"shift": 0, "light": 0},
        "optim": {"weight_decay": 0, "warmup_steps": 0, "clip_norm": 0},
    }
    if isinstance(config, ClipConfig):
        least["data"] |= {"frames": 1, "kept_frames": config.data.frames, "cache_mb": 0}
        least["loss"] = {"tokens": 0}
    else:
        kept = config.data.segments if config.data.kept_segments else 0
        least["data"] |= {"segments": 1, "kept_segments": kept, "cache_mb": 0}
        least["loss"] = {"segments": 0, "tokens": 0, "outline": 0}
    for section, keys in least.items():
        for key, bound in keys.items():
            at_least(getattr(config, section), section, bound, (key,))
    _check_shares(config)
    if isinstance(config, SyncConfig) and not config.loss.segments + config.loss.tokens + config.loss.outline:
        raise InputError("loss.segments, loss.tokens and loss.outline are all 0; one weight above 0 is needed.")
    if not config.model.base:
        _ = clip_spec(config.model) if isinstance(config, ClipConfig) else sync_spec(config.model)


def _check_shares(config: Any) -> None:
    for name in ("shift", "light"):
        if getattr(config.augment, name) >= 1:
            raise InputError(f"augment.{name} is {getattr(config.augment, name):g}; a share below 1 is needed.")
    if config.optim.lr <= 0 or config.loss.temperature <= 0:
        raise InputError(
            f"optim.lr is {config.optim.lr:g} and loss.temperature is {config.loss.temperature:g}; both must be above 0."
        )
    check_betas(config.optim.betas)


def clip_spec(model: ClipModelConfig) -> CLIPSpec:
    """The CLIP that the configuration describes."""
    if model.vision_width % max(1, model.vision_head_width) or model.text_width % max(1, model.text_heads):
        raise InputError(
            f"model.vision_width = {model.vision_width} must be a multiple of model.vision_head_width = "
            f"{model.vision_head_width}, and model.text_width = {model.text_width} one of model.text_heads = "
            f"{model.text_heads}."
        )
    return CLIPSpec(
        embed_dim=model.embed_dim,
        image_size=model.image_size,
        vision_layers=model.vision_layers,
        vision_width=model.vision_width,
        vision_head_width=model.vision_head_width,
        patch=model.patch,
        text_width=model.text_width,
        text_heads=model.text_heads,
        text_layers=model.text_layers,
        quick_gelu=model.quick_gelu,
    )


def sync_spec(model: SyncModelConfig) -> SynchformerSpec:
    """The visual tower that the configuration describes: 8 tokens of 2 frames each."""
    spec = SynchformerSpec(model.width, model.heads, model.blocks, model.mlp_width, model.patch, model.grid)
    assert spec.temporal_tokens * spec.tubelet_frames == SYNC_SEGMENT_FRAMES
    return spec

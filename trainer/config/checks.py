"""What a configuration's values must satisfy, alone and together; no file is read and nothing heavy is imported."""

from __future__ import annotations

from mmaudio_core.errors import InputError
from mmaudio_core.spec.model import HEAD_DIM, VARIANTS, FlowSpec

from .bounds import at_least, check_betas, check_pieces
from .schema import ModelConfig, RunConfig

CUSTOM = "custom"


def check_run(config: RunConfig) -> None:
    """Raises InputError for values out of range or that contradict each other; the sentence names the keys."""
    _check_model(config)
    _check_ranges(config)
    _check_schedule(config)
    train = config.train
    if not config.data.train:
        raise InputError("data.train is empty; name the folders or URLs of shards that mmaudio-train extract wrote.")
    if not train.folder:
        raise InputError("train.folder is empty; name the folder that the run is to be kept in.")
    check_pieces(train.global_batch, train.accumulation, "global_batch")
    if config.preview.every and not config.data.validation:
        raise InputError("preview.every asks for previews, but data.validation is empty; name held-out shards or set it to 0.")
    if config.validation.every and not config.data.validation:
        raise InputError("validation.every is set, but data.validation is empty; name held-out shards or set it to 0.")


def spec_of(model: ModelConfig) -> FlowSpec | None:
    """The network that ``variant`` and ``sizes`` describe; None where that is left to the base file."""
    if not model.variant:
        return None
    if model.variant != CUSTOM:
        return VARIANTS[model.variant]
    sizes = model.sizes
    return FlowSpec(
        sizes.latent_dim,
        sizes.heads * HEAD_DIM,
        sizes.heads,
        sizes.joint_blocks,
        sizes.audio_blocks,
        sizes.v2,
        sizes.clip_dim,
        sizes.sync_dim,
        sizes.text_dim,
        sizes.text_tokens,
        sizes.sync,
        sizes.rope,
        sizes.mlp,
        sizes.sync_timing,
    )


def _check_model(config: RunConfig) -> None:
    model = config.model
    if model.variant not in ("", CUSTOM, *VARIANTS):
        raise InputError(f'model.variant is {model.variant!r}; use one of {", ".join(VARIANTS)}, {CUSTOM}, or "" with a base.')
    if not model.variant and not model.base:
        raise InputError("model.variant and model.base are both empty; name a variant to train or a file to start from.")
    spec = spec_of(model)
    if model.base and model.empty != "published":
        raise InputError(f'model.empty = "{model.empty}" is for a new network, and model.base brings its own; leave one out.')
    if config.lora.rank and not model.base:
        raise InputError("lora.rank asks for a LoRA, but model.base is empty; name the network's file that it is made for.")
    if config.lora.rank and not config.lora.targets:
        raise InputError('lora.targets is empty; ["*"] means every layer.')
    if config.lora.rank and config.ema.sigma_rels:
        raise InputError("ema.sigma_rels asks for averages of the weights, which a LoRA does not have; set it to [].")
    if spec is not None and config.preview.every and spec.audio.name != "16k":
        missing = [key for key in ("vae", "vocoder") if not getattr(config.preview, key)]
        if missing:
            raise InputError(
                f"preview.{missing[0]} is empty, and the embedded one is of 16 kHz while the network needs {spec.audio.name}; "
                "name its file or set preview.every to 0."
            )


def _check_ranges(config: RunConfig) -> None:
    at_least(config.train, "train", 1, ("steps", "global_batch", "accumulation"))
    at_least(config.train, "train", 0, ("clip_norm", "seed"))
    at_least(config.data, "data", 1, ("av_repeat", "window_shards"))
    at_least(config.data, "data", 0, ("statistics_samples",))
    if config.times.std <= 0:
        raise InputError(f"times.std is {config.times.std:g}; a number above 0 is needed.")
    if not 0 <= config.data.sound_share <= 1:
        raise InputError(f"data.sound_share is {config.data.sound_share:g}; a share from 0 to 1 is needed.")
    at_least(config.optim, "optim", 0, ("weight_decay", "warmup_steps", "decay_by"))
    at_least(config.ema, "ema", 0, ("snapshot_every",))
    at_least(config.checkpoint, "checkpoint", 1, ("keep",))
    at_least(config.checkpoint, "checkpoint", 0, ("every",))
    at_least(config.health, "health", 0, ("max_loss_factor", "max_gradient_norm", "max_consecutive_skips"))
    at_least(config.validation, "validation", 0, ("every", "warn_ratio"))
    at_least(config.validation, "validation", 1, ("samples", "batch"))
    at_least(config.preview, "preview", 0, ("every",))
    at_least(config.preview, "preview", 1, ("clips", "steps"))
    at_least(config.log, "log", 1, ("every",))
    at_least(config.lora, "lora", 0, ("rank",))
    for name in ("video", "text"):
        share = getattr(config.dropout, name)
        if not 0 <= share <= 1:
            raise InputError(f"dropout.{name} is {share:g}; a share from 0 to 1 is needed.")


def _check_schedule(config: RunConfig) -> None:
    optim = config.optim
    if optim.lr <= 0 or optim.eps <= 0:
        raise InputError(f"optim.lr is {optim.lr:g} and optim.eps is {optim.eps:g}; both must be above 0.")
    check_betas(optim.betas)
    if list(optim.decay_at) != sorted(set(optim.decay_at)) or not all(0 < share <= 1 for share in optim.decay_at):
        raise InputError(
            f"optim.decay_at is {list(optim.decay_at)}; rising shares of the steps, above 0 and up to 1, are needed."
        )
    if optim.warmup_steps > config.train.steps:
        raise InputError(
            f"optim.warmup_steps = {optim.warmup_steps} is more than train.steps = {config.train.steps}; give fewer."
        )
    for sigma in config.ema.sigma_rels:
        if not 0 < sigma < 0.28:
            raise InputError(
                f"ema.sigma_rels holds {sigma:g}; relative widths above 0 and below 0.28 are possible (0.05 is usual)."
            )

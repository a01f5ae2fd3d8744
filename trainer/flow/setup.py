"""What a run is made of, from its configuration: data, network, optimiser, averages."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from mmaudio_core.errors import InputError
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.spec.timing import STEADY_DURATION_S
from mmaudio_core.transformer.model import FlowNetwork

from ..config.schema import RunConfig
from ..data.index import Index, join
from ..data.order import OrderSettings, rank_positions
from ..data.stream import Stream
from ..ema.power import PowerEMA
from ..engine.distributed import Ranks, wrap
from ..lora.inject import add_lora
from .initialise import empty_text_feature, make_network
from .optim import make_optimizer
from .standardise import standardise_
from .statistics import latent_statistics
from .trainable import AUTOCAST, TrainableFlow, blocks_of, prepare_blocks

log = logging.getLogger("mmaudio")


@dataclass(frozen=True)
class Trained:
    """network: the published one inside ``module``, which is what the ranks share. parameters: those that are trained."""

    spec: FlowSpec
    network: FlowNetwork
    module: nn.Module
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: PowerEMA | None


def load_data(config: RunConfig) -> tuple[Index, Index | None]:
    """(training data, held-out data or None).

    Raises:
        InputError, DownloadError: for an index that cannot be read, or data sets that do not fit each other.
    """
    training = join([Index.load(location) for location in config.data.train])
    if not config.data.validation:
        return training, None
    held_out = join([Index.load(location) for location in config.data.validation])
    join([training, held_out])  # says where they differ
    if not len(held_out):
        raise InputError(f"data.validation ({', '.join(config.data.validation)}) holds no samples; name other shards.")
    return training, held_out


def make_stream(config: RunConfig, index: Index, ranks: Ranks) -> Stream:
    """This rank's batches.

    Raises:
        InputError: when the global batch does not divide among ranks and accumulation.
    """
    train, data = config.train, config.data
    settings = OrderSettings(train.global_batch, train.seed, data.av_repeat, data.window_shards, sound_share=data.sound_share)
    positions = rank_positions(ranks.rank, ranks.world, train.global_batch)
    return Stream(index, settings, positions, train.accumulation, pin=ranks.device.type == "cuda", verify=data.verify)


def make_trained(config: RunConfig, index: Index, ranks: Ranks, resumed: bool) -> Trained:
    """The network on its device, wrapped for the ranks, with its optimiser; ``resumed``: a checkpoint will fill it.

    Raises:
        InputError: when the data are of other widths than the network.
        WeightsError: for a file that is not what belongs there.
    """
    network = make_network(config.model, config.train.seed)
    check_widths(network.spec, index)
    settle_timing(network, index, bool(config.model.base))
    if not config.model.base and not resumed:
        with torch.no_grad():
            mean, std = latent_statistics(index, ranks, config.data.statistics_samples)
            network.latent_mean.copy_(mean)
            network.latent_std.copy_(std)
            if config.model.empty == "published":
                network.empty_string_feat.copy_(empty_text_feature(config.model, network.spec))
        if config.model.standardise:
            standardise_(network, index)
    lora = config.lora
    if lora.rank:
        add_lora(network, lora.rank, lora.alpha, lora.targets, dropout=lora.dropout, seed=config.train.seed)
    network.to(ranks.device)
    prepare_blocks(network, config.train.checkpointing, config.train.compile)
    mixed = AUTOCAST[config.train.precision]
    whole = TrainableFlow(network, config.train.precision).train()
    module = wrap(whole, ranks, config.parallel.mode, blocks_of(network), mixed)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(parameters, config.optim, ranks.device)
    widths = config.ema.sigma_rels
    ema = PowerEMA(dict(network.named_parameters()), widths) if widths else None
    count = sum(parameter.numel() for parameter in parameters)
    log.info("%s: %.1f million parameters are trained on %s.", network.spec.variant, count / 1e6, ranks.device)
    return Trained(network.spec, network, module, parameters, optimizer, ema)


def check_widths(spec: FlowSpec, index: Index) -> None:
    """Raises InputError when the data were extracted for another audio format, or by encoders of other widths."""
    found = {
        "latent_dim": index.widths.latent[1],
        "clip_dim": index.widths.clip[1],
        "sync_dim": index.widths.sync[1],
        "text_dim": index.widths.text[1],
        "text_tokens": index.widths.text[0],
    }
    wrong = {name: value for name, value in found.items() if value != getattr(spec, name)}
    if wrong:
        said = ", ".join(f"{name} {value} where the network takes {getattr(spec, name)}" for name, value in wrong.items())
        raise InputError(
            f"The data do not fit the network ({spec.variant}): {said}. Extract them with the encoders of that variant, or "
            "train another one."
        )


def settle_timing(network: FlowNetwork, index: Index, begun: bool) -> None:
    """Makes a "steady" network "stretched" where it would see clips of another pace than its own.

    begun: it comes from a file, whose timing nobody chose for this run.

    Raises:
        InputError: when it does not, so that "steady" was asked for.
    """
    if network.spec.sync_timing != "steady" or index.duration_s == STEADY_DURATION_S:
        return
    said = f'the sync timing "steady" is the pace of {STEADY_DURATION_S:g} s, and the data are clips of {index.duration_s:g} s'
    if not begun:
        raise InputError(
            f'In model.sizes, {said}; extract them with --duration {STEADY_DURATION_S:g}, or set it to "stretched".'
        )
    log.warning('In the base, %s: it is trained as "stretched" (a LoRA needs --sync-timing stretched then).', said)
    network.spec = replace(network.spec, sync_timing="stretched")


def check_steps(config: RunConfig, done: int) -> None:
    """Raises InputError where a run that has ``done`` so many steps is asked for fewer, of which it holds no weights."""
    if done > config.train.steps:
        raise InputError(
            f"train.steps is {config.train.steps}, but the run in {config.train.folder} has done {done}; give {done} or more, "
            "or set train.folder to a new one."
        )


def same_run(config: RunConfig, other: RunConfig) -> None:
    """Whether ``config`` may go on with a run that was begun with ``other``; other changes are said in the log.

    Raises:
        InputError: when what must stay differs: the network, what is trained of it, the seed, the global batch, the averages.
    """
    fixed = {
        "model": lambda c: replace(c.model, text_encoder=""),
        "lora": lambda c: c.lora,
        "train.seed": lambda c: c.train.seed,
        "train.global_batch": lambda c: c.train.global_batch,
        "ema.sigma_rels": lambda c: c.ema.sigma_rels,
    }
    getters: dict[str, Any] = fixed
    for name, get in getters.items():
        if get(config) != get(other):
            raise InputError(
                f"The run in {config.train.folder} was begun with another {name} ({get(other)} instead of {get(config)}); "
                "go on with the same, or set train.folder to a new one."
            )
    other = replace(other, train=replace(other.train, folder=config.train.folder))  # where a run lies is no part of it
    if config != other:
        changed = [name for name in vars(config) if getattr(config, name) != getattr(other, name)]
        log.warning("The configuration has changed since the run was begun, in: %s.", ", ".join(changed))

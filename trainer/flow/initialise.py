"""The network at step 0: random weights, or a file's; statistics and the empty text's feature."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmaudio_core.errors import InputError, WeightsError
from mmaudio_core.pipeline.files import EMBEDDED_FILE
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.transformer.model import FlowNetwork
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.parts import open_raw_part
from mmaudio_core.weights.registry import licence_of

from ..config.checks import spec_of
from ..config.schema import ModelConfig

DATA_NAMES = ("latent_mean", "latent_std", "empty_string_feat")
"""Parameters by name that are data: stored with the network, never trained."""
TIME_STD = 0.02


def make_network(config: ModelConfig, seed: int) -> FlowNetwork:
    """The network that ``config`` asks for, float32 on the CPU, ready to be trained; its data (see ``DATA_NAMES``) as the base
    file's, or still unset.

    Raises:
        WeightsError: when the base file is not a flow network, or of another variant than the one asked for.
    """
    if config.base:
        return load_base(config)
    spec = spec_of(config)
    assert spec is not None  # checked with the configuration
    with torch.device("meta"):
        network = FlowNetwork(spec)
    network = network.to_empty(device="cpu")
    initialise_(network, seed)
    network.empty_string_feat.requires_grad_(config.empty == "learned")
    for empty in (network.empty_clip_feat, network.empty_sync_feat):
        empty.requires_grad_(config.empty != "zeros")
    return network.train()


def licence_of_base(config: ModelConfig) -> str:
    """Of the base file's flow network; "" without a base."""
    return licence_of(open_raw_part(Path(config.base).expanduser(), "flow").values, "flow") if config.base else ""


def load_base(config: ModelConfig) -> FlowNetwork:
    """The network in ``config.base`` in float32, with gradients for all but its data."""
    module, spec = load_part(Path(config.base).expanduser(), "flow", dtype=torch.float32)
    wanted = spec_of(config)
    if wanted is not None and wanted != spec:
        found = cast(FlowSpec, spec).variant
        raise WeightsError(f'{config.base} is {found} and model.variant asks for {wanted.variant}; set model.variant = "".')
    for name, parameter in module.named_parameters():
        # The parameters are views of the mapped file, which an optimiser must not write to.
        parameter.data = parameter.data.clone()
        parameter.requires_grad_(name not in DATA_NAMES)
    return cast(FlowNetwork, module.train())


@torch.no_grad()
def initialise_(network: FlowNetwork, seed: int) -> None:
    """Fills every parameter anew (arXiv 2412.15322, appendix; spec section 6), from a generator of its own.

    Linear maps: Xavier uniform (Glorot and Bengio 2010), biases zero. Convolutions: torch's own default, weights and biases
    uniform within 1 / sqrt(fan-in), since the paper names none. Time embedding: weights N(0, 0.02^2), biases zero. Norm scales:
    one. Zero: every modulation, the final layer, the empty tokens, the positions of the sync tokens.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    network.latent_mean.zero_()
    network.latent_std.fill_(1.0)
    for empty in (network.empty_string_feat, network.empty_clip_feat, network.empty_sync_feat, network.sync_pos_emb):
        empty.zero_()
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            _fill_layer(name, module, generator)
        elif hasattr(module, "weight") and not list(module.children()):
            norm: Any = module
            norm.weight.fill_(1.0)


def _fill_layer(name: str, layer: nn.Linear | nn.Conv1d, generator: torch.Generator) -> None:
    fan_out, fan_in = layer.weight.shape[0], math.prod(layer.weight.shape[1:])
    parts = name.split(".")
    if "adaLN_modulation" in parts or "final_layer" in parts:
        layer.weight.zero_()
    elif "t_embed" in parts:
        layer.weight.normal_(0.0, TIME_STD, generator=generator)
    else:
        is_linear = isinstance(layer, nn.Linear)
        bound = math.sqrt(6 / (fan_in + fan_out)) if is_linear else 1 / math.sqrt(fan_in)
        layer.weight.uniform_(-bound, bound, generator=generator)
        if layer.bias is not None and not is_linear:
            layer.bias.uniform_(-bound, bound, generator=generator)
            return
    if layer.bias is not None:
        layer.bias.zero_()


def empty_text_feature(config: ModelConfig, spec: FlowSpec) -> Tensor:
    """The text encoder's feature of the empty string, float32 (T, text width).

    Raises:
        InputError: when the encoder's features are of another shape than the network's text input.
        WeightsError: when the file holds no CLIP.
        DependencyError: when open_clip is missing.
    """
    path = Path(config.text_encoder).expanduser() if config.text_encoder else EMBEDDED_FILE
    module, _ = load_part(path, "clip", image=False, dtype=torch.float32)
    encoder: Any = module
    feature: Tensor = encoder.encode_text([""])[0].float().cpu()
    if tuple(feature.shape) != (spec.text_tokens, spec.text_dim):
        which = config.text_encoder or "the embedded text encoder"
        raise InputError(
            f"{which} gives text features of shape {tuple(feature.shape)} and the network takes "
            f"{(spec.text_tokens, spec.text_dim)}; set model.text_encoder to the CLIP file that the data was extracted with."
        )
    return feature

"""Which path computes the flow network, and with what: the plain one, or the fast one with kernels, attention and graphs."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..attention import sdpa
from ..attention.choose import Chooser
from ..attention.listing import AUTO, named
from ..attention.protocol import Attention
from ..errors import InputError
from ..features.room import available_bytes, has_room
from ..kernels.dense import Tile
from ..kernels.onednn import works
from ..kernels.sets import Kernels, choose_kernels
from ..layers.float8 import keeps_float8
from ..sampling.guidance import Velocity, guided
from ..spec.timing import SequenceLengths
from ..transformer.conditions import Conditions
from ..transformer.fast import FastFlow
from ..transformer.fast_inputs import run_inputs
from ..transformer.guided import GuidedVelocity
from ..transformer.layout import lay_out_
from ..transformer.model import FlowNetwork
from ..types import Features

log = logging.getLogger("mmaudio")

PATHS = ("auto", "plain", "torch", "triton", "cuda", "compile")
PACKED_SHARE = 2.0
"""Bytes of the CPU's copy of the weights by those of the weights, at most: Winograd's six products for three taps."""


@dataclass(frozen=True)
class Speed:
    """How to compute; what is chosen never changes the result beyond rounding.

    kernels: "auto", "plain" (the reference network as it is written), "torch" (the fast path in plain PyTorch), "triton",
    "cuda", "compile" (the fast path through torch.compile).
    attention: "auto" or the name of a backend (``attention.listing``).
    graphs: CUDA graphs of the step; None means on a CUDA device, except with "plain" and "compile".
    tile: outputs per Winograd tile of convolutions on a CPU in float32; 0 for none.
    """

    kernels: str = "auto"
    attention: str = "auto"
    graphs: bool | None = None
    tile: Tile = 4

    def __post_init__(self) -> None:
        if self.kernels not in PATHS:
            raise InputError(f"The kernels {self.kernels!r} are unknown; use one of {', '.join(PATHS)}.")
        if self.attention != AUTO:
            named(self.attention)
        if self.tile not in (0, 2, 4):
            raise InputError(f"A Winograd tile of {self.tile} was given; use 2, 4, or 0 for none.")


class Accelerator:
    """Makes velocity functions for samplers. One per model; it remembers what it measured.

    attend: attention to use instead of ``speed.attention``'s, for hosts that choose it.
    version: changes whenever a host changed weights without moving them.
    patched: whether others patch the weights by name, so that their rows stay in the published order.
    """

    def __init__(
        self,
        speed: Speed | None = None,
        attend: Attention | None = None,
        version: Hashable = None,
        patched: bool = False,
    ) -> None:
        self.speed = speed or Speed()
        self.version, self.patched = version, patched
        self._attend = attend or Chooser().bound(self.speed.attention)
        # The reference is left as it is unless an attention was asked for.
        self._plain_attend = sdpa.attend if attend is None and self.speed.attention == "auto" else self._attend
        self._kernels: dict[torch.device, Kernels] = {}
        self._said: set[str] = set()

    @property
    def plain(self) -> bool:
        """Whether every stage is computed as it is written."""
        return self.speed.kernels == "plain"

    def equip(self, part: Any, device: torch.device) -> None:
        """Gives an encoder, VAE or vocoder the kernels and the attention that its fast path computes with."""
        if not self.plain and device.type != "mps":
            if hasattr(part, "kernels"):
                part.kernels = self._kernels_on(device)
            if hasattr(part, "attention"):
                part.attention = self._attend
            if hasattr(part, "graphs"):
                part.graphs = self._graphs(device)

    def empty_conditions(self, net: FlowNetwork, lengths: SequenceLengths) -> Conditions:
        """The guidance branch without any input; of batch 1."""
        if self.reason_for_plain(net) is not None:
            return net.conditions(Features(), lengths)
        self._layers(net)
        return net.fast_cache.empty_conditions(lengths, lambda: net.conditions(Features(), lengths))

    def velocity(
        self,
        net: FlowNetwork,
        conditions: Conditions,
        empty: Conditions | None,
        strength: float,
        batch: int,
        times: Sequence[float] = (),
    ) -> Velocity:
        """Guided velocity for ``batch`` samples; ``conditions`` and ``empty`` (None: no guidance) of batch 1 or ``batch``.

        Raises:
            InputError: when kernels or attention that were asked for cannot run here.
        """
        reason = self.reason_for_plain(net)
        if reason is not None:
            self._say(f"The flow network runs on its plain path: {reason}.")
            plain = partial(net.velocity, attend=self._plain_attend)
            return guided(plain, conditions.expand(batch), empty and empty.expand(batch), strength)
        layers = self._layers(net)
        inputs = run_inputs(net, conditions, empty, batch)
        graphs, compiled = self._graphs(net.device), self.speed.kernels == "compile"
        # What inference mode made, nothing outside of it may write to.
        key = (inputs.shapes, strength, graphs, id(self._attend), torch.is_inference_mode_enabled())
        made, known = net.fast_cache.run(
            key, lambda: GuidedVelocity(layers, inputs, strength, self._attend, times, graphs, compiled)
        )
        velocity: GuidedVelocity = made
        if known:
            velocity.begin(inputs, times)
        return velocity

    def reason_for_plain(self, net: FlowNetwork) -> str | None:
        """Why ``net`` is computed as it is written, as a clause; None where the fast path serves.

        Raises:
            InputError: when a set of kernels was asked for by name and the network's weights do not allow any.
        """
        wish = self.speed.kernels
        if wish == "plain":
            return "it was asked for"
        reason = _unfit(net)
        if reason is None and wish == "auto":
            reason = self._not_worth_it(net)
        if reason is not None and wish != "auto":
            raise InputError(f"The kernels {wish!r} cannot be used: {reason}. Use auto or plain.")
        return reason

    def _not_worth_it(self, net: FlowNetwork) -> str | None:
        if net.device.type == "mps":
            return "the fast path has not been tried on Apple's GPUs"
        if net.device.type != "cpu" or net.fast_cache.is_filled:
            return None
        if net.dtype != torch.float32:
            return "on a CPU the fast path computes in float32"
        if not works():
            return "this torch lacks the packed multiplications that make the fast path fast on a CPU"
        size = PACKED_SHARE * sum(p.numel() * p.element_size() for p in net.parameters())
        if not has_room("Flow network", int(size), available_bytes()):
            return "there is too little memory for a copy of its weights in the CPU's layout"
        return None

    def _kernels_on(self, device: torch.device) -> Kernels:
        if device not in self._kernels:
            self._kernels[device] = choose_kernels(self.speed.kernels, device)
            log.info("The fast path on %s computes with the kernels of %r.", device, self._kernels[device].name)
        return self._kernels[device]

    def _graphs(self, device: torch.device) -> bool:
        wish = self.speed.graphs
        return device.type == "cuda" and (self.speed.kernels != "compile" if wish is None else wish)

    def _layers(self, net: FlowNetwork) -> FastFlow:
        kernels = self._kernels_on(net.device)

        def make() -> FastFlow:
            return FastFlow(net, kernels, self.speed.tile)

        if net.device.type != "cpu":
            lay_out_(net, by_part=not self.patched)
        layers: FastFlow = net.fast_cache.layers(net, (kernels.name, self.speed.tile, self.version), make)
        return layers

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            log.info(sentence)


def _unfit(net: FlowNetwork) -> str | None:
    if torch.is_grad_enabled() and any(p.requires_grad for p in net.parameters()):
        return "gradients are wanted"
    if keeps_float8(net):
        return "its weights are kept in float8"
    device, dtype = net.device, net.dtype
    for name, p in net.named_parameters():
        if p.device != device or p.dtype != dtype:
            return f"{name} is {p.dtype} on {p.device}, and the network computes in {dtype} on {device}"
    return None

"""MODEL: the flow network as one of ComfyUI's own models, so that its samplers, guiders, LoRAs and masks work on it.

The classes below it are private to ComfyUI and promise nothing; only this file and native_vae.py build on them.
Time and sign: ComfyUI's flow models run sigma from 1 to 0 with x = sigma noise + (1 - sigma) data; here t = 1 - sigma, and the
model's output is minus our velocity, so Euler steps coincide.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import torch

from ...mmaudio_core.errors import InputError
from ...mmaudio_core.pipeline.memory import flow_bytes
from ...mmaudio_core.pipeline.stages import fuses_attention
from ...mmaudio_core.spec.model import FlowSpec
from ...mmaudio_core.weights.build import load_part
from ...mmaudio_core.weights.carried import carried
from ...mmaudio_core.weights.metadata import encode_part
from ...mmaudio_core.weights.parts import open_raw_part
from ...mmaudio_core.weights.registry import licence_of
from . import conditioning
from .memory import compute_device, flow_dtypes
from .native_flow import NativeFlow

log = logging.getLogger("mmaudio")


def _operations(casts: bool) -> SimpleNamespace:
    """The host's layers, which can work from weights that lie elsewhere.

    Own subclasses, so that the host does not delay making the weights: ours are put in place by our loader.
    """
    base: Any = comfy.ops.manual_cast if casts else comfy.ops.disable_weight_init
    plain = torch.nn.Module._load_from_state_dict
    return SimpleNamespace(
        Linear=type("Linear", (base.Linear,), {"_load_from_state_dict": plain}),
        Conv1d=type("Conv1d", (base.Conv1d,), {"_load_from_state_dict": plain}),
    )


class MMAudioLatent(comfy.latent_formats.LatentFormat):
    """LATENT on the wire holds VAE latents (B, C, L); the network sees them normalised by its own statistics."""

    latent_dimensions = 1

    def __init__(self, net: NativeFlow | None = None) -> None:
        if net is not None:
            self.latent_channels = net.spec.latent_dim
            self.mean = net.latent_mean.detach().float().cpu().reshape(1, -1, 1).clone()
            self.std = net.latent_std.detach().float().cpu().reshape(1, -1, 1).clone()

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        if latent.ndim != 3 or latent.shape[1] != self.latent_channels:
            raise ValueError(
                f"A latent of shape {tuple(latent.shape)} was given; this MMAudio model needs (batch, {self.latent_channels}, "
                "tokens). Make it with 'MMAudio: Empty Latent' from this model, or encode sound with a VAE of its sample rate."
            )
        return (latent - self.mean.to(latent)) / self.std.to(latent)

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        return latent * self.std.to(latent) + self.mean.to(latent)


class MMAudioConfig(comfy.supported_models_base.BASE):
    """What ComfyUI asks a model's configuration for; ``carried`` is saved with the network's tensors."""

    carried: Mapping[str, torch.Tensor] = MappingProxyType({})
    unet_config: ClassVar[dict[str, Any]] = {}
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    sampling_settings: ClassVar[dict[str, float]] = {"shift": 1.0, "multiplier": 1.0}
    memory_usage_factor = 1.0
    supported_inference_dtypes: ClassVar[list[torch.dtype]] = [torch.bfloat16, torch.float16, torch.float32]

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, torch.Tensor]) -> Any:
        """ModelSave writes tensors and no metadata of ours."""
        return super().process_unet_state_dict_for_saving({**state_dict, **self.carried})


class MMAudioModel(comfy.model_base.BaseModel):
    """The flow network among ComfyUI's models."""

    def __init__(self, config: MMAudioConfig, net: NativeFlow, device: torch.device) -> None:
        super().__init__(config, comfy.model_base.ModelType.FLOW, device=device, unet_model=lambda **_: net)

    @property
    def spec(self) -> FlowSpec:
        return self.diffusion_model.spec

    def process_timestep(self, timestep: torch.Tensor, **_: Any) -> torch.Tensor:
        # Nodes that shift the schedule put a sampling object with another multiplier in place; undo whichever is there.
        return 1.0 - timestep / getattr(self.model_sampling, "multiplier", 1.0)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        out = super().extra_conds(**kwargs)
        text = kwargs.get("cross_attn")
        if text is None or kwargs["noise"].ndim != 3:
            raise ValueError(
                "MMAudio needs a conditioning of 'MMAudio: Encode Prompt' and a latent of 'MMAudio: Empty Latent'."
            )
        try:
            filled = conditioning.complete(self.diffusion_model, text, kwargs, kwargs["noise"].shape[2])
        except InputError as error:
            raise ValueError(str(error)) from error
        out["c_crossattn"] = comfy.conds.CONDRegular(filled["text"])
        out[conditioning.CLIP] = comfy.conds.CONDRegular(filled[conditioning.CLIP])
        out[conditioning.SYNC] = comfy.conds.CONDRegular(filled[conditioning.SYNC])
        out[conditioning.SYNC_TIMING] = comfy.conds.CONDConstant(filled[conditioning.SYNC_TIMING])
        return out

    def memory_required(self, input_shape: Any, cond_shapes: Any = None) -> float:
        """Bytes of activations for ``input_shape`` (B, C, L), guidance's branches in B; the host's formula is for pictures."""
        dtype, fused = self.manual_cast_dtype or self.get_dtype(), fuses_attention(compute_device())
        return flow_bytes(self.spec, input_shape[0], input_shape[-1], dtype, fused)


def load_native_model(path: Path, precision: str, progress: Any = None) -> Any:
    """A flow network's file as a ModelPatcher (MODEL).

    Raises:
        WeightsError: when the file is no flow network, or is damaged.
        InputError: when the device does not compute in ``precision``.
    """
    raw = open_raw_part(path, "flow")
    parameters = sum(tensor.numel() for tensor in raw.tensors.values())
    raw.file.release()
    dtype, cast = flow_dtypes(precision, parameters)
    load_device, offload_device = compute_device(), comfy.model_management.unet_offload_device()

    def build(spec: Any) -> NativeFlow:
        return NativeFlow(spec, cast or dtype, load_device, _operations(cast is not None))

    net, _ = load_part(path, "flow", dtype=dtype, device=offload_device, progress=progress, build=build)
    config = MMAudioConfig({})
    config.set_inference_dtype(dtype, cast)
    config.carried = carried(encode_part(net.spec, licence=licence_of(raw.values, "flow")))
    config.latent_format = MMAudioLatent(net)
    config.custom_operations = comfy.ops.disable_weight_init  # made already; this keeps the host from choosing again
    model = MMAudioModel(config, net, offload_device)
    log.info("MMAudio %s: weights %s, computing in %s on %s.", raw.detected.variant, dtype, cast or dtype, load_device)
    return comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)


def flow_of(model: Any) -> NativeFlow:
    """The network inside a MODEL.

    Raises:
        InputError: when the MODEL is no MMAudio.
    """
    inner = getattr(model, "model", None)
    if not isinstance(inner, MMAudioModel):
        kind = type(inner if inner is not None else model).__name__
        raise InputError(f"The model is a {kind}, not an MMAudio flow network; connect the output of 'MMAudio: Load Model'.")
    return inner.diffusion_model

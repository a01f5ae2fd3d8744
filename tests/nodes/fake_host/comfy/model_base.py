"""A flow model: x = sigma noise + (1 - sigma) data, and the network gives noise - data."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace

import torch


class ModelType(Enum):
    EPS = 1
    FLOW = 6


class BaseModel(torch.nn.Module):
    def __init__(self, model_config, model_type=ModelType.EPS, device=None, unet_model=None) -> None:
        super().__init__()
        assert model_type is ModelType.FLOW
        self.model_config, self.latent_format = model_config, model_config.latent_format
        self.manual_cast_dtype, self.device = model_config.manual_cast_dtype, device
        operations = model_config.custom_operations
        self.diffusion_model = unet_model(**model_config.unet_config, device=device, operations=operations)
        self.model_sampling = SimpleNamespace(multiplier=model_config.sampling_settings["multiplier"])

    def get_dtype(self):
        return self.diffusion_model.dtype

    def process_timestep(self, timestep, **kwargs):
        return timestep

    def extra_conds(self, **kwargs):
        return {}

    def process_latent_in(self, latent):
        return self.latent_format.process_in(latent)

    def process_latent_out(self, latent):
        return self.latent_format.process_out(latent)

    def apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
        """x (B, C, L) at sigma t (B,) -> the data that the network expects."""
        dtype = self.manual_cast_dtype or self.get_dtype()
        given = {name: value.to(dtype) if hasattr(value, "dtype") else value for name, value in kwargs.items()}
        time = self.process_timestep((t * self.model_sampling.multiplier).float(), x=x, **given)
        options = {"control": control, "transformer_options": transformer_options or {}}
        out = self.diffusion_model(x.to(dtype), time, context=c_crossattn.to(dtype), **options, **given).float()
        return x - t.reshape(-1, 1, 1) * out

"""A VAE that runs ``first_stage_model`` under the attributes that a subclass has set."""

from __future__ import annotations

import torch

from . import model_management


class VAE:
    def __init__(self, sd=None, device=None, config=None, dtype=None, metadata=None) -> None:
        assert set(sd) == {"pixel_space_vae"}
        self.first_stage_model = torch.nn.Identity()
        self.output_device = torch.device("cpu")

    def vae_encode_crop_pixels(self, pixels):
        return pixels

    def decode(self, samples_in):
        """Latents (B, C, L) -> (B, N, channels)."""
        memory = self.memory_used_decode(samples_in.shape, self.vae_dtype)
        model_management.load_models_gpu([self.patcher], memory_required=memory, force_full_load=self.disable_offload)
        out = self.first_stage_model.decode(samples_in.to(self.vae_dtype))
        return self.process_output(out.float()).movedim(1, -1)

    def encode(self, pixel_samples):
        """Sound (B, N, channels) -> latents (B, C, L)."""
        pixels = self.vae_encode_crop_pixels(pixel_samples).movedim(-1, 1)
        memory = self.memory_used_encode(pixels.shape, self.vae_dtype)
        model_management.load_models_gpu([self.patcher], memory_required=memory, force_full_load=self.disable_offload)
        return self.first_stage_model.encode(self.process_input(pixels).to(self.vae_dtype)).float()

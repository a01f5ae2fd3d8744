"""VAE: the mel VAE and its vocoder as one of ComfyUI's own, so that VAEDecodeAudio and VAEEncodeAudio work.

Both nodes take and give sound at 44.1 kHz on every ComfyUI since 0.3.64 (old ones whatever the VAE says), so this object does
too, for a 16 kHz model by resampling; our own nodes use ``module`` directly and keep the model's rate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import torch
from torch import Tensor

from ...mmaudio_core.errors import InputError
from ...mmaudio_core.spec.timing import MIN_DURATION_S
from .memory import compute_device, precision_dtype
from .patcher import WholePatcher
from .sound import SoundModule, load_sound_module

HOST_RATE_HZ = 44_100


class MMAudioVAE(comfy.sd.VAE):
    """Latents (B, C, L) to sound (B, N, 1) and back, at 44.1 kHz."""

    def __init__(self, module: SoundModule, dtype: torch.dtype) -> None:
        # The smallest of the host's own: sets every attribute that this version of it knows.
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)})
        spec = module.spec
        self.module = module
        self.first_stage_model = _HostRate(module)
        self.vae_dtype, self.working_dtypes = dtype, [dtype]
        self.latent_channels, self.latent_dim, self.output_channels = spec.latent_dim, 1, 1
        ratio = spec.samples_of_latents(1) * HOST_RATE_HZ / spec.sample_rate_hz
        self.upscale_ratio = self.downscale_ratio = int(ratio) if ratio == int(ratio) else ratio
        self.memory_used_decode = lambda shape, _: module.decode_bytes(shape[-1])
        self.memory_used_encode = lambda shape, _: module.encode_bytes(shape[-1] * spec.sample_rate_hz / HOST_RATE_HZ)
        self.process_input = self.process_output = _same
        self.crop_input, self.disable_offload, self.extra_1d_channel = False, True, None
        self.audio_sample_rate = self.audio_sample_rate_output = HOST_RATE_HZ
        self.size = None
        self.device = compute_device()
        self.patcher = WholePatcher(
            self.first_stage_model,
            load_device=self.device,
            offload_device=comfy.model_management.vae_offload_device(),
        )

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        # Stereo is averaged, as everywhere in MMAudio; the host would take the left channel.
        return pixels.float().mean(dim=-1, keepdim=True)

    def use(self, activation_bytes: float) -> SoundModule:
        """The module on its device, with room for its work."""
        comfy.model_management.load_models_gpu([self.patcher], memory_required=activation_bytes, force_full_load=True)
        return self.module


def _same(value: Tensor) -> Tensor:
    return value


class _HostRate(torch.nn.Module):
    """What the host's VAE class calls."""

    def __init__(self, module: SoundModule) -> None:
        super().__init__()
        self.module = module

    def decode(self, samples: Tensor, **_: Any) -> Tensor:
        """Latents (B, C, L) -> sound (B, 1, N) at 44.1 kHz."""
        spec = self.module.spec
        if samples.ndim != 3 or samples.shape[1] != spec.latent_dim:
            raise ValueError(
                f"A latent of shape {tuple(samples.shape)} was given to a {spec.name} VAE of MMAudio, which needs (batch, "
                f"{spec.latent_dim}, tokens); load the VAE and vocoder of the model's sample rate."
            )
        return self.module.to_rate(self.module.decode_samples(samples), HOST_RATE_HZ).to(samples.device)

    def encode(self, samples: Tensor) -> Tensor:
        """Sound (B, 1, N) at 44.1 kHz -> latents (B, C, L)."""
        # ``decode`` rounds up to a whole sample at 44.1 kHz, and that fraction of one is no further token.
        count = samples.shape[-1]
        seconds = max((count - 1) / HOST_RATE_HZ, min(count / HOST_RATE_HZ, MIN_DURATION_S))
        try:
            return self.module.encode_samples(samples, HOST_RATE_HZ, seconds).to(samples.device)
        except InputError as error:
            raise ValueError(str(error)) from error


def load_native_vae(vae: Path, vocoder: Path, precision: str, progress: Any = None) -> MMAudioVAE:
    """The two files as a VAE.

    Raises:
        WeightsError: for wrong or damaged files, or a VAE and vocoder of different sample rates.
    """
    dtype = precision_dtype(precision)
    device = comfy.model_management.vae_offload_device()
    return MMAudioVAE(load_sound_module(vae, vocoder, dtype, device, progress), dtype)


def sound_vae_of(vae: Any) -> MMAudioVAE:
    """``vae`` itself.

    Raises:
        InputError: when it is no MMAudio VAE.
    """
    if not isinstance(vae, MMAudioVAE):
        raise InputError(
            f"The VAE is a {type(getattr(vae, 'first_stage_model', vae)).__name__}, not MMAudio's; connect the output of "
            "'MMAudio: Load VAE'."
        )
    return vae

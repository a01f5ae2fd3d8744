"""The configuration that a model is made from."""

from typing import Any, ClassVar

from . import latent_formats


class BASE:
    unet_config: ClassVar[dict[str, Any]] = {}
    unet_extra_config: ClassVar[dict[str, Any]] = {"num_heads": -1}
    sampling_settings: ClassVar[dict[str, float]] = {}
    latent_format = latent_formats.LatentFormat
    memory_usage_factor = 2.0
    manual_cast_dtype = None
    custom_operations = None

    def __init__(self, unet_config) -> None:
        self.unet_config = {**unet_config, **self.unet_extra_config}
        self.latent_format = self.latent_format()

    def set_inference_dtype(self, dtype, manual_cast_dtype) -> None:
        self.unet_config["dtype"], self.manual_cast_dtype = dtype, manual_cast_dtype

    def process_unet_state_dict_for_saving(self, state_dict):
        return {f"model.diffusion_model.{name}": value for name, value in state_dict.items()}

"""What the host's ModelSave writes is loaded again as what it was."""

from __future__ import annotations

from typing import Any

from safetensors.torch import save_file

from .host import TINY, Host


def test_a_saved_model_keeps_what_shapes_do_not_say(host: Host) -> None:
    model: Any = host.run("LoadModel", model_file=TINY)[0].model
    spec = model.diffusion_model.spec
    assert spec.sync_timing == "steady", "else nothing is tested"
    tensors = model.model_config.process_unet_state_dict_for_saving(model.diffusion_model.state_dict())
    save_file({name: value.contiguous() for name, value in tensors.items()}, host.models / "saved.safetensors")
    again = host.run("LoadModel", model_file="saved.safetensors")[0].model
    assert again.diffusion_model.spec == spec
    other = host.run("LoadModel", model_file=TINY)[0].model
    assert other.model_config.carried is not model.model_config.carried

"""Run by ComfyUI's Python in its folder: the flow network half loaded, as on a small card, with and without a LoRA.

    python partial_load.py PACK FLOW_FILE LORA_FILE

Prints one line of JSON: how many layers stayed behind, and whether the result is the same to the bit.
"""

import importlib.util
import json
import sys
from pathlib import Path

pack_folder, flow_file, lora_file = (Path(argument) for argument in sys.argv[1:4])
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, str(Path.cwd()))

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.lora  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402

NAME = "/somewhere/custom_nodes/mmaudio-graph"
spec = importlib.util.spec_from_file_location(NAME, pack_folder / "__init__.py", submodule_search_locations=[str(pack_folder)])
pack = importlib.util.module_from_spec(spec)
sys.modules[NAME] = pack
spec.loader.exec_module(pack)
native = importlib.import_module(f"{NAME}.nodes.host.native_model")
CPU = torch.device("cpu")


def patched(with_lora):
    patcher = native.load_native_model(flow_file, "fp32")
    if with_lora:
        keys = comfy.lora.model_lora_keys_unet(patcher.model, {})
        loaded = comfy.lora.load_lora(comfy.utils.load_torch_file(str(lora_file), safe_load=True), keys)
        patcher = patcher.clone()
        patcher.add_patches(loaded, 0.7)
    return patcher


def velocity(patcher, device=CPU):
    net = patcher.model.diffusion_model
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, net.spec.latent_dim, 63, generator=generator)
    text = torch.randn(2, net.spec.text_tokens, net.spec.text_dim, generator=generator)
    clip = torch.randn(2, 16, net.spec.clip_dim, generator=generator)
    sync = torch.randn(2, 40, net.spec.sync_dim, generator=generator)
    with torch.inference_mode():
        x, text, clip, sync, t = (value.to(device) for value in (x, text, clip, sync, torch.tensor([0.3, 0.3])))
        return net(x, t, context=text, mmaudio_clip=clip, mmaudio_sync=sync)


result = {}
for with_lora in (False, True):
    whole = patched(with_lora)
    whole.load(CPU, full_load=True)
    wanted = velocity(whole)
    part = patched(with_lora)
    # Room for a quarter of the weights: the rest stays behind and is brought at use.
    part.load(CPU, lowvram_model_memory=part.model_size() // 4)
    behind = [name for name, module in part.model.named_modules() if getattr(module, "comfy_cast_weights", False)]
    got = velocity(part)
    error = float((got - wanted).norm() / wanted.norm())
    result["lora" if with_lora else "plain"] = {"behind": len(behind), "error": error}
    part.unpatch_model(CPU)
    again = patched(False)
    again.load(CPU, full_load=True)
    if not with_lora:
        result["plain"]["again"] = bool(torch.equal(velocity(again), wanted))

# A device that holds no numbers but refuses to be mixed with another: whatever the host leaves behind must be brought to it.
META = torch.device("meta")
mixed = patched(True)
mixed.load(META, lowvram_model_memory=mixed.model_size() // 4)
mixed.model.diffusion_model.compute_device = META
devices = {str(value.device) for value in mixed.model.diffusion_model.parameters()}
result["devices"] = sorted(devices)
result["result_device"] = str(velocity(mixed, META).device)

# What is made of plain layers is loaded whole, however little the host allows (under --novram it allows next to nothing).
patcher = importlib.import_module(f"{NAME}.nodes.host.patcher")
whole = patcher.WholePatcher(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Conv1d(8, 8, 3)), META, CPU)
whole.partially_load(META, 0.1)
result["whole"] = sorted({str(value.device) for value in whole.model.parameters()})
print(json.dumps(result))

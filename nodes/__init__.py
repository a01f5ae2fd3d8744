"""The pack's nodes for ComfyUI (V3): the one list of them, and what happens when the host loads it."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import legacy
from .decode import CombineVideoAudio, Decode
from .encode import EncodePrompt, ExtractFeatures
from .generate import Generate, LoadPipeline
from .host import folders
from .latent import EmptyLatent, EncodeAudio, RegenerateSeconds
from .load import LoadEncoders, LoadLoRA, LoadModel, LoadVAE
from .sample import LinearSigmas, Noise, Sampler
from .variant import LoadVariant

NODES: tuple[type[io.ComfyNode], ...] = (
    Generate,
    LoadPipeline,
    LoadVariant,
    LoadModel,
    LoadVAE,
    LoadEncoders,
    LoadLoRA,
    ExtractFeatures,
    EncodePrompt,
    EmptyLatent,
    EncodeAudio,
    RegenerateSeconds,
    Sampler,
    LinearSigmas,
    Noise,
    Decode,
    CombineVideoAudio,
)


class MMAudioGraph(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack, and those for old workflows."""
        return [*NODES, *legacy.NODES, *legacy.aliases()]


async def comfy_entrypoint() -> MMAudioGraph:
    """Called once by ComfyUI."""
    folders.register()
    return MMAudioGraph()

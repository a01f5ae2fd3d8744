"""Loaders: the flow network, the VAE with its vocoder, the encoders, and a LoRA on the flow network."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import sockets
from .host import folders
from .host.errors import plainly
from .host.memory import PRECISIONS

NONE = "none"


def precision_input() -> Any:
    return io.Combo.Input(
        "precision",
        options=list(PRECISIONS),
        default="auto",
        tooltip="Number format of the weights. auto: the half precision that your GPU is good at, float32 on a CPU.",
    )


def file_input(input_id: str, kind: str, what: str, none: bool = False) -> Any:
    return io.Combo.Input(
        input_id,
        options=folders.names_of(kind) + ([NONE] if none else []),
        tooltip=f"{what} in models/mmaudio. Only files that hold one are listed, whatever they are called.",
    )


class LoadModel(io.ComfyNode):
    """The flow network as MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LoadModel",
            display_name="MMAudio: Load Model",
            category=f"{sockets.CATEGORY}/load",
            description="Loads MMAudio's flow network as a MODEL: for MMAudio: Sampler, KSampler, SamplerCustomAdvanced, LoRA "
            "loaders and TorchCompileModel. The variant is read from the file.",
            inputs=[file_input("model_file", "flow", "The flow network"), precision_input()],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(cls, model_file: str | None = None, **_: Any) -> str:
        return folders.stamp_of(model_file)

    @classmethod
    @plainly
    def execute(cls, model_file: str, precision: str) -> io.NodeOutput:
        from .host.native_model import load_native_model
        from .host.progress import HostProgress

        return io.NodeOutput(load_native_model(folders.file_of(model_file, "flow"), precision, HostProgress()))


class LoadVAE(io.ComfyNode):
    """The mel VAE and the vocoder as VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LoadVAE",
            display_name="MMAudio: Load VAE",
            category=f"{sockets.CATEGORY}/load",
            description="Loads MMAudio's mel VAE together with its vocoder as a VAE: for MMAudio: Decode, VAEDecodeAudio and "
            "VAEEncodeAudio. Both files must be of the model's sample rate, 16 kHz or 44.1 kHz.",
            inputs=[
                file_input("vae_file", "vae", "The mel VAE"),
                file_input("vocoder_file", "vocoder", "The BigVGAN vocoder"),
                precision_input(),
            ],
            outputs=[io.Vae.Output(display_name="vae")],
        )

    @classmethod
    def fingerprint_inputs(cls, vae_file: str | None = None, vocoder_file: str | None = None, **_: Any) -> list[str]:
        return [folders.stamp_of(vae_file), folders.stamp_of(vocoder_file)]

    @classmethod
    @plainly
    def execute(cls, vae_file: str, vocoder_file: str, precision: str) -> io.NodeOutput:
        from .host.native_vae import load_native_vae
        from .host.progress import HostProgress

        vae, vocoder = folders.file_of(vae_file, "vae"), folders.file_of(vocoder_file, "vocoder")
        return io.NodeOutput(load_native_vae(vae, vocoder, precision, HostProgress()))


class LoadEncoders(io.ComfyNode):
    """CLIP and Synchformer, read when first needed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}LoadEncoders",
            display_name="MMAudio: Load Encoders",
            category=f"{sockets.CATEGORY}/load",
            description="Chooses CLIP (for text and pictures) and Synchformer (for timing). Each part is loaded only when a "
            "connected node needs it: text-to-audio never loads the video towers.",
            inputs=[
                file_input("clip_file", "clip", "CLIP ViT-H/14 384", none=True),
                file_input("synchformer_file", "synchformer", "Synchformer", none=True),
                precision_input(),
            ],
            outputs=[sockets.Encoders.Output(display_name="encoders")],
        )

    @classmethod
    def fingerprint_inputs(cls, clip_file: str | None = None, synchformer_file: str | None = None, **_: Any) -> list[str]:
        return [folders.stamp_of(clip_file), folders.stamp_of(synchformer_file)]

    @classmethod
    @plainly
    def execute(cls, clip_file: str, synchformer_file: str, precision: str) -> io.NodeOutput:
        from .host.encoders import Encoders

        clip = None if clip_file == NONE else folders.file_of(clip_file, "clip")
        synchformer = None if synchformer_file == NONE else folders.file_of(synchformer_file, "synchformer")
        return io.NodeOutput(Encoders(clip, synchformer, precision))


class LoadLoRA(io.ComfyNode):
    """A LoRA on the flow network, refused when it is of another model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from .host.loras import lora_names

        return io.Schema(
            node_id=f"{sockets.PREFIX}LoadLoRA",
            display_name="MMAudio: Load LoRA",
            category=f"{sockets.CATEGORY}/load",
            description="Applies a LoRA from models/loras to an MMAudio model. Lists only LoRAs of MMAudio and says when one "
            "was made for another variant; ComfyUI's own LoRA loaders work too, but pass over what does not fit.",
            inputs=[
                io.Model.Input("model", tooltip="Of MMAudio: Load Model or Load Variant."),
                io.Combo.Input("lora_file", options=lora_names(), tooltip="A LoRA for MMAudio in models/loras."),
                io.Float.Input(
                    "strength", default=1.0, min=-20.0, max=20.0, step=0.01, tooltip="1 is as trained, 0 is without it."
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_file: str | None = None, **_: Any) -> str:
        from .host.loras import lora_stamp

        return lora_stamp(lora_file)

    @classmethod
    @plainly
    def execute(cls, model: Any, lora_file: str, strength: float) -> io.NodeOutput:
        from .host.loras import with_lora

        return io.NodeOutput(with_lora(model, lora_file, strength))

"""One loader for everything a variant needs, which can fetch what is missing."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import sockets
from .host.errors import plainly
from .load import precision_input

ASK, FETCH = "no", "yes"


def variant_inputs() -> list[Any]:
    """Variant, download and precision, shared with the all-in-one node."""
    from .host.variants import LICENCE_NOTE, names

    return [
        io.Combo.Input(
            "variant",
            options=names(),
            default=names()[0],
            tooltip="The tiny one is in the pack and knows only a small made-up world: it shows that everything works. "
            "large_44k_v2 sounds best.",
        ),
        io.Combo.Input(
            "download",
            options=[ASK, FETCH],
            default=ASK,
            tooltip=f"yes: files that are missing are fetched into models/mmaudio (several GB). {LICENCE_NOTE}",
        ),
        precision_input(),
    ]


def files_stamp(variant: str | None, precision: str | None) -> str:
    """What tells the host's cache that other files than before would be loaded."""
    from .host.variants import stamp_of

    return stamp_of(variant, precision)


class LoadVariant(io.ComfyNode):
    """MODEL, VAE and encoders of one variant."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from .host.variants import LICENCE_NOTE

        return io.Schema(
            node_id=f"{sockets.PREFIX}LoadVariant",
            display_name="MMAudio: Load Variant",
            category=f"{sockets.CATEGORY}/load",
            description="Finds all files of a variant in models/mmaudio, whatever they are called, and loads them as MODEL, "
            f"VAE and encoders; can fetch the missing ones. {LICENCE_NOTE}",
            inputs=variant_inputs(),
            outputs=[
                io.Model.Output(display_name="model"),
                io.Vae.Output(display_name="vae"),
                sockets.Encoders.Output(display_name="encoders"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, variant: str | None = None, precision: str | None = None, **_: Any) -> str:
        return files_stamp(variant, precision)

    @classmethod
    @plainly
    def execute(cls, variant: str, download: str, precision: str) -> io.NodeOutput:
        from .host.encoders import Encoders
        from .host.native_model import load_native_model
        from .host.native_vae import load_native_vae
        from .host.progress import HostProgress
        from .host.variants import files_of

        progress = HostProgress()
        files = files_of(variant, download == FETCH, precision, progress)
        return io.NodeOutput(
            load_native_model(files["flow"], precision, progress),
            load_native_vae(files["vae"], files["vocoder"], precision, progress),
            Encoders(files["clip"], files["synchformer"], precision),
        )

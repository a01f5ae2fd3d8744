"""ComfyUI's entry: registers the nodes where ComfyUI is the host, and does nothing anywhere else."""

from importlib.util import find_spec

if __package__ and find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

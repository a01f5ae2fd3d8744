"""Schemas. Every argument is spelled out, so that one that ComfyUI 0.3.64 does not know is a TypeError."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Input:
    io_type = "*"
    widget = False

    def __init__(self, id, display_name=None, optional=False, tooltip=None, lazy=None, extra_dict=None) -> None:
        self.id, self.display_name, self.optional, self.tooltip, self.lazy = id, display_name, optional, tooltip, lazy
        self.extra_dict = extra_dict or {}


class Widget(Input):
    widget = True
    default: Any = None

    def _keep(self, values: dict[str, Any]) -> None:
        common = ("id", "display_name", "optional", "tooltip", "lazy")
        super().__init__(*(values[name] for name in common))
        self.__dict__.update({k: v for k, v in values.items() if k not in (*common, "self", "__class__")})


class Output:
    io_type = "*"

    def __init__(self, id=None, display_name=None, tooltip=None, is_output_list=False) -> None:
        self.id, self.display_name, self.tooltip, self.is_output_list = id, display_name, tooltip, is_output_list


class _IntInput(Widget):
    def __init__(self, id, display_name=None, optional=False, tooltip=None, lazy=None, default=None, min=None, max=None,
                 step=None, control_after_generate=None, display_mode=None, socketless=None, force_input=None):  # fmt: skip
        self._keep(locals())


class _FloatInput(Widget):
    def __init__(self, id, display_name=None, optional=False, tooltip=None, lazy=None, default=None, min=None, max=None,
                 step=None, round=None, display_mode=None, socketless=None, force_input=None):  # fmt: skip
        self._keep(locals())


class _StringInput(Widget):
    def __init__(self, id, display_name=None, optional=False, tooltip=None, lazy=None, multiline=False, placeholder=None,
                 default=None, dynamic_prompts=None, socketless=None, force_input=None):  # fmt: skip
        self._keep(locals())


class _BooleanInput(Widget):
    def __init__(self, id, display_name=None, optional=False, tooltip=None, lazy=None, default=None, label_on=None,
                 label_off=None, socketless=None, force_input=None):  # fmt: skip
        self._keep(locals())


class _ComboInput(Widget):
    def __init__(self, id, options=None, display_name=None, optional=False, tooltip=None, lazy=None, default=None,
                 control_after_generate=None, upload=None, image_folder=None, remote=None, socketless=None):  # fmt: skip
        self._keep(locals())
        if not options or not all(isinstance(option, str) for option in options):
            raise ValueError(f"{id}: a list of strings is needed")
        self.default = options[0] if default is None else default
        if self.default not in options:
            raise ValueError(f"{id}: the default {default!r} is not in the list")


def _type(name: str, input_class: type[Input] = Input) -> Any:
    made = {base.__name__: type(base.__name__, (base,), {"io_type": name}) for base in (Output,)}
    return type(name, (), {"io_type": name, "Input": type("Input", (input_class,), {"io_type": name}), **made})


def Custom(io_type: str) -> Any:
    return _type(io_type)


Int, Float, String = _type("INT", _IntInput), _type("FLOAT", _FloatInput), _type("STRING", _StringInput)
Boolean, Combo = _type("BOOLEAN", _BooleanInput), _type("COMBO", _ComboInput)
Model, Vae, Conditioning, Latent = (_type(name) for name in ("MODEL", "VAE", "CONDITIONING", "LATENT"))
Audio, Video, Image, Mask = (_type(name) for name in ("AUDIO", "VIDEO", "IMAGE", "MASK"))
Sigmas, Noise, Sampler, Guider, Clip = (_type(name) for name in ("SIGMAS", "NOISE", "SAMPLER", "GUIDER", "CLIP"))


class Hidden(str, Enum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def __post_init__(self) -> None:
        ids = [i.id for i in self.inputs]
        if len(ids) != len(set(ids)):
            raise ValueError(f"{self.node_id}: two inputs have the same id")
        if not all(isinstance(i, Input) for i in self.inputs) or not all(isinstance(o, Output) for o in self.outputs):
            raise TypeError(f"{self.node_id}: something is no input or output")


class NodeOutput:
    def __init__(self, *args: Any, ui: Any = None, expand: dict | None = None, block_execution: str | None = None) -> None:
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution

    def __getitem__(self, index: int) -> Any:
        return self.args[index]


class _Locked(type):
    """Node classes take no attributes while they run."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if name.startswith("__"):  # such as the name of a class that was made
            return super().__setattr__(name, value)
        raise AttributeError(f"{cls.__name__} keeps no state: {name} was set on the class")


class ComfyNode(metaclass=_Locked):
    hidden: Any = None

    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

"""A file becomes a module: built on the meta device, then filled from the mapped file, tensor by tensor."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import WeightsError
from ..layers.float8 import put_float8, quantize
from ..spec.model import CLIPSpec, FlowSpec, PartSpec, SynchformerSpec, VAESpec, VocoderSpec
from .fp8 import check_storage, store_in_float8_
from .parts import Part, open_part
from .registry import PHRASES, belongs
from .safetensors_file import ByteProgress

COMPUTE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
RELEASE_EVERY = 256 << 20
"""Bytes converted before the pages of the source file are let go."""
SHOWN = 5


def load_part(
    path: str | os.PathLike[str],
    kind: str,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    expect: str | None = None,
    image: bool = True,
    text: bool = True,
    fold: bool = True,
    encoder: bool = True,
    storage: str | None = None,
    progress: ByteProgress | None = None,
    build: Callable[[Any], nn.Module] | None = None,
) -> tuple[nn.Module, PartSpec]:
    """Loads one part ("flow", "vae", "vocoder", "synchformer", "clip") from any file that holds it.

    Every floating tensor gets ``dtype``; None means the number format that most of the file has (float32 where that is none to
    compute in). On the CPU and without a change of format the parameters are views of the mapped file: loading reads next to
    nothing, and the file must stay in place while the module lives. With a change of format or device the source is let go as
    the loading proceeds, so memory holds the result and about 256 MB more.

    ``expect`` is the variant that is needed ("large_44k_v2", or "16k" / "44k" for VAE and vocoder). ``image`` and ``text``
    choose CLIP's towers, and ``encoder`` whether a VAE gets its encoder; what is not wanted is neither built nor read. ``fold``
    normalises a VAE's weights for inference. ``storage`` "fp8" keeps the large weights of flow network, CLIP or Synchformer in
    8 bits, to be computed with in ``dtype`` (``weights/fp8.py``). ``progress`` gets (bytes loaded, in all). ``build`` makes the
    module from its configuration instead of us, on the meta device.

    Returns the module in eval mode without gradients, and its configuration.

    Raises:
        WeightsError: the file is not what belongs there, or tensors are missing, surplus or of a wrong shape (named).
        InputError: for a ``storage`` that the part or the device does not have.
    """
    device = torch.device(device)
    check_storage(storage, device)
    part = open_part(path, kind)
    _check_variant(part, expect)
    spec = part.detected.spec
    with torch.device("meta"):
        module = build(spec) if build else build_module(spec, image=image, text=text, encoder=encoder)
    tensors = part.tensors
    if kind == "clip":
        tensors = {name: value for name, value in tensors.items() if (image if name.startswith("visual.") else text)}
    elif kind == "vae" and not encoder:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("encoder.")}
    _fill(module, tensors, part, dtype or usual_dtype(tensors.values()), device, storage, progress)
    module.requires_grad_(False).eval()
    if kind == "vae" and fold:
        vae: Any = module
        vae.fold_weights_()
        part.file.release()  # the raw weights are not needed again
    return module, spec


def build_module(spec: PartSpec, *, image: bool = True, text: bool = True, encoder: bool = True) -> nn.Module:
    """The module that ``spec`` describes, with the weights its constructor gives (on the current default device).

    CLIP without one of its towers, a VAE without its encoder, where so asked.
    """
    if isinstance(spec, FlowSpec):
        from ..transformer.model import FlowNetwork

        return FlowNetwork(spec)
    if isinstance(spec, VAESpec):
        from ..autoencoder.vae import VAE

        vae = VAE(spec)
        if not encoder:
            del vae.encoder
        return vae
    if isinstance(spec, VocoderSpec):
        from ..vocoder.bigvgan import BigVGAN

        return BigVGAN(spec)
    if isinstance(spec, SynchformerSpec):
        from ..features.synchformer import SynchformerVisual

        return SynchformerVisual(spec)
    if isinstance(spec, CLIPSpec):
        from ..features.clip import CLIPEncoder

        return CLIPEncoder(spec, image=image, text=text)
    raise WeightsError(f"There is no module for the configuration {type(spec).__name__}.")


def usual_dtype(tensors: Iterable[torch.Tensor]) -> torch.dtype:
    """The floating format that most of the bytes have; float32 where it is one that nothing computes in (float64, 8 bits)."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point():
            sizes[tensor.dtype] += tensor.numel() * tensor.element_size()
    usual = sizes.most_common(1)[0][0] if sizes else torch.float32
    return usual if usual in COMPUTE_DTYPES else torch.float32


def _check_variant(part: Part, expect: str | None) -> None:
    found = part.detected
    if expect is not None and found.variant != expect:
        raise WeightsError(f"{part.file.path} is {found.phrase}; {belongs(found.kind, expect)} ({expect}).")


def check_names(slots: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Compares a module's state dict with the tensors for it; ``what`` begins the sentence.

    Raises:
        WeightsError: naming the first missing, surplus and misshaped tensors, with their numbers.
    """
    missing = [name for name in slots if name not in tensors]
    surplus = [name for name in tensors if name not in slots]
    both = [name for name in slots if name in tensors]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(slots[name].shape)}"
        for name in both
        if tensors[name].shape != slots[name].shape
    ]
    problems = [_some("lacks", missing), _some("has the unknown", surplus), _some("has of the wrong shape", shapes)]
    if any(problems):
        said = "; it ".join(text for text in problems if text)
        raise WeightsError(f"{what} {said}. The file is damaged or of another model.")


def _some(verb: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{verb} {len(names)} tensor{'s' * (len(names) != 1)}: {shown}"


def _fill(
    module: nn.Module,
    tensors: dict[str, torch.Tensor],
    part: Part,
    dtype: torch.dtype,
    device: torch.device,
    storage: str | None,
    progress: ByteProgress | None,
) -> None:
    slots = module.state_dict(keep_vars=True)
    check_names(slots, tensors, f"{part.file.path} ({PHRASES[part.detected.kind]}, {part.detected.variant})")
    narrow = set(store_in_float8_(module, part.detected.kind, dtype) if storage else ())
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    loaded = converted = 0
    for name in list(tensors):
        source = tensors.pop(name)  # so that a converted source can go at once
        wanted = dtype if source.is_floating_point() and name not in narrow else None
        value = source.to(device=device, dtype=wanted).contiguous()
        if name in narrow:
            value, scale = quantize(value)  # where it will stay, which on a GPU is the faster place
            put_float8(*_slot(module, name), value, scale)
        else:
            _assign(module, name, value, slots[name])
        if value.data_ptr() != source.data_ptr():
            converted += source.numel() * source.element_size()
        if converted >= RELEASE_EVERY:
            part.file.release()
            converted = 0
        loaded += source.numel() * source.element_size()
        if progress is not None:
            progress(loaded, total)
    if converted:
        part.file.release()
    _no_meta(module, part, device)


def _slot(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, leaf = name.rpartition(".")
    return module.get_submodule(owner), leaf


def _assign(module: nn.Module, name: str, value: torch.Tensor, slot: torch.Tensor) -> None:
    owner, leaf = _slot(module, name)
    if isinstance(slot, nn.Parameter):
        setattr(owner, leaf, nn.Parameter(value, requires_grad=False))
    else:
        owner.register_buffer(leaf, value)


def _no_meta(module: nn.Module, part: Part, device: torch.device) -> None:
    held: dict[str, Any] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    if empty := [name for name, value in held.items() if value.is_meta]:
        raise WeightsError(f"{part.file.path} left {_some('without values', empty)}.")
    # Buffers that are not in any file (filters) were made on the CPU.
    if device.type != "cpu":
        module.to(device)

"""Opening any weights file: names and memory-mapped tensors, or one sentence about what the file is instead."""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .safetensors_file import MappedTensors, read_header
from .sniff import sniff, wrong

NESTED_KEYS = ("generator", "state_dict", "model", "weights", "ema", "model_state_dict", "ema_model", "module", "params")
"""Keys under which trainers keep a model's tensors."""


@dataclass(frozen=True)
class TensorFile:
    """An open weights file.

    ``tensors`` maps names, as they stand in the file, to CPU tensors; where ``mapped`` is true these are views of a private
    mapping of the file: nothing is in memory before it is read, and writing to them does not change the file. ``format`` is
    "safetensors", "torch zip" or "torch pickle"; ``metadata`` is that of a safetensors file, else empty; ``nested`` is the key
    under which a torch file kept the tensors, else "".
    """

    path: Path
    format: str
    tensors: Mapping[str, torch.Tensor]
    metadata: dict[str, str]
    mapped: bool
    nested: str = ""

    def release(self) -> None:
        """Lets go of the pages of the file that were read so far (they are read again when needed). Linux; elsewhere nothing.

        Without it a conversion of a 4 GB file would hold the source and the result in memory at once.
        """
        if self.mapped:
            for tensor in self.tensors.values():
                _drop_pages(tensor)


def open_tensors(path: str | os.PathLike[str], kind: str | None = None) -> TensorFile:
    """Opens a weights file by its content (its name and ending do not matter).

    ``kind`` is the part that is wanted ("flow", "vae", ...); it is only used in messages. Torch files are read with
    ``weights_only=True``: no code in them is ever run.

    Raises:
        WeightsError: one sentence saying what the file is and what belongs there.
    """
    path = Path(path)
    container = sniff(path, kind)
    if container == "safetensors":
        header = read_header(path, kind)
        if not header.entries:
            raise wrong(path, "is a safetensors file without any tensors", kind)
        return TensorFile(path, "safetensors", MappedTensors(path, header), header.metadata, mapped=True)
    # Newer releases of torch go by the ending ".safetensors", whatever the content; an open file has no name, but no mapping.
    mapped = container == "zip" and not path.name.endswith(".safetensors")
    value = _torch_load(path, mapped, kind)
    tensors, nested = _state_dict(path, value, kind)
    name = "torch zip" if container == "zip" else "torch pickle"
    return TensorFile(path, name, tensors, {}, mapped=mapped, nested=nested)


def _torch_load(path: Path, mapped: bool, kind: str | None) -> Any:
    try:
        if mapped:
            return torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=True)
        with open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise wrong(path, _unpickling(str(error)), kind) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0][:160]
        raise wrong(path, f"is a torch file that is damaged ({first}); download it again", kind) from error


def _unpickling(message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"(?:class|function|global) ([\w.]+\.[\w.]+)", message)
    if found or "nsupported" in message:
        what = f" ({found.group(1)})" if found else ""
        return f"contains code{what} besides tensors and was not run; save the state dict alone"
    return "is a torch file whose contents are damaged; download it again"


def _tensors_of(value: Any) -> dict[str, torch.Tensor] | None:
    """The tensors of a flat state dict; plain values beside them (a step count, a name) are let go; else None."""
    if not isinstance(value, Mapping):
        return None
    tensors = {str(name): item for name, item in value.items() if isinstance(item, torch.Tensor)}
    others = [item for item in value.values() if not isinstance(item, torch.Tensor)]
    plain = all(item is None or isinstance(item, (bool, int, float, str)) for item in others)
    return tensors if tensors and plain else None


def _state_dict(path: Path, value: Any, kind: str | None) -> tuple[dict[str, torch.Tensor], str]:
    if isinstance(value, torch.Tensor):
        raise wrong(path, f"holds one single tensor of shape {tuple(value.shape)}, not a model", kind)
    if not isinstance(value, Mapping):
        raise wrong(path, f"holds a {type(value).__name__}, not a model", kind)
    if not value:
        raise wrong(path, "is a torch file without any tensors", kind)
    if "param_groups" in value and "state" in value:
        raise wrong(path, "is the state of an optimiser, not a model", kind)
    if flat := _tensors_of(value):
        return flat, ""
    inner = {str(key): tensors for key, item in value.items() if key in NESTED_KEYS and (tensors := _tensors_of(item))}
    if len(inner) == 1:
        key, tensors = next(iter(inner.items()))
        return tensors, key
    keys = ", ".join(str(key) for key in list(value)[:8]) + (", ..." if len(value) > 8 else "")
    if inner:
        several = f"is a training checkpoint with several models under {', '.join(inner)} (its keys: {keys})"
        raise wrong(path, f"{several}; save the one that is wanted alone", kind)
    raise wrong(path, f"holds no model that can be told apart (its keys: {keys})", kind)


@lru_cache(maxsize=1)
def _madvise() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


def _drop_pages(tensor: torch.Tensor) -> None:
    """Only for tensors that view an unwritten private mapping of a file: anything else would lose its values."""
    madvise = _madvise()
    storage = tensor.untyped_storage()
    if madvise is None or storage.nbytes() == 0:
        return
    start = tensor.data_ptr()
    stop = start + tensor.numel() * tensor.element_size()
    start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = stop // mmap.PAGESIZE * mmap.PAGESIZE
    if tensor.is_contiguous() and stop > start:
        madvise(start, stop - start, mmap.MADV_DONTNEED)

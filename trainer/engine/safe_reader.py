"""Reading of ``torch.distributed.checkpoint`` folders that somebody else wrote: nothing in them is executed.

Its own reader unpickles the folder's ``.metadata``, its planner unpickles every value that is no tensor, and a pickle can call
any function. Here the metadata may name only the classes that such metadata consist of. Every value is read with
``weights_only``; what the planner unpickles was written anew from that. The files stay as ``torch.distributed.checkpoint`` lays
them out, so checkpoints of earlier versions can be read.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

METADATA = ".metadata"
_MOST_METADATA_BYTES = 1 << 30
_CLASSES = {
    "torch.distributed.checkpoint.metadata": (
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "ChunkStorageMetadata",
        "BytesStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo", "_StoragePrefix"),
    "torch.distributed._shard.sharded_tensor.metadata": ("TensorProperties", "MEM_FORMAT_ENCODING"),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
    "collections": ("OrderedDict",),
}
_PATHS = {
    "PosixPath": PurePosixPath,
    "PurePosixPath": PurePosixPath,
    "WindowsPath": PureWindowsPath,
    "PureWindowsPath": PureWindowsPath,
}
"""Where the folder lay; as pure paths they can be read on another system."""


class SafeReader(FileSystemReader):
    """Reads the checkpoint in ``folder``; a ``storage_reader`` for ``dcp.load``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What the folder says that it holds.

        Raises:
            pickle.UnpicklingError: when it names a class that does not belong there, or is no metadata.
            OSError: when it cannot be read.
        """
        with open(self._folder / METADATA, "rb") as file:
            data = file.read(_MOST_METADATA_BYTES)
        try:
            metadata = _MetadataUnpickler(io.BytesIO(data)).load()
        except pickle.UnpicklingError:
            raise
        except Exception as error:  # what a damaged pickle raises is not limited to a few kinds
            raise pickle.UnpicklingError(f"{METADATA} is damaged ({type(error).__name__})") from error
        entries = getattr(metadata, "state_dict_metadata", None)
        if not isinstance(metadata, Metadata) or not isinstance(entries, dict) or not _sound(entries):
            raise pickle.UnpicklingError(f"{METADATA} holds no description of a checkpoint")
        meta = getattr(metadata, "storage_meta", None)  # torch before 2.3 has none
        if meta is not None:
            meta.load_id = getattr(self, "load_id", None)
        return metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Hand the planner every value of ``plan``, each read with ``weights_only``."""
        for item in plan.items:
            value = _load(item, self._bytes_of(item))
            if item.type == LoadItemType.BYTE_IO:
                planner.load_bytes(item, _saved(value))
                continue
            self._fill(item, value, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _bytes_of(self, item: ReadItem) -> bytes:
        place = self.storage_data[item.storage_index]
        name, start, length = place.relative_path, place.offset, place.length
        path = self._folder / str(name)
        if path.parent != self._folder or not all(isinstance(number, int) and number >= 0 for number in (start, length)):
            raise ValueError(f"{METADATA} points outside of the checkpoint, to {name!r}")
        if getattr(place, "transform_descriptors", None):
            raise ValueError(f"{name} is packed in a form that this trainer never writes")
        if start + length > path.stat().st_size:
            raise ValueError(f"{name} is cut off")
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(length)

    @staticmethod
    def _fill(item: ReadItem, value: Any, planner: LoadPlanner) -> None:
        name = item.storage_index.fqn
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} is no tensor")
        for dimension, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
            value = value.narrow(dimension, offset, length)
        target = planner.resolve_tensor(item).detach()
        if target.size() != value.size():
            raise ValueError(f"{name} has the shape {tuple(value.shape)}; {tuple(target.shape)} was expected")
        target.copy_(value)
        planner.commit_tensor(item, target)


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "pathlib" and name in _PATHS:
            return _PATHS[name]
        known = name in _CLASSES.get(module, ())
        if known or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(_foreign(METADATA, f"{module}.{name}"))


def refusal(where: str, error: pickle.UnpicklingError) -> str:
    """What torch's refusal to unpickle ``where`` says, as a clause that names the class or function."""
    text = str(error)
    found = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"(?:class|function|global) ([\w.]+\.[\w.]+)", text)
    return _foreign(where, found[1]) if found else f"{where} is damaged"


def _foreign(where: str, name: str) -> str:
    return f"{where} names {name}, which belongs into no checkpoint; it may be code, and it was not run"


def _load(item: ReadItem, data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(refusal(item.storage_index.fqn, error)) from error


def _saved(value: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer


def _sound(entries: dict[Any, Any]) -> bool:
    kinds = (TensorStorageMetadata, BytesStorageMetadata)
    return all(isinstance(name, str) and isinstance(entry, kinds) for name, entry in entries.items())

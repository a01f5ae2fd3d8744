"""Code in a run folder that somebody shares: it is refused by name and never executed, wherever it lies."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata

from mmaudio_core.errors import MMAudioError, WeightsError
from trainer.config.load import read_toml
from trainer.data.index import Index
from trainer.data.shards import Shard
from trainer.engine import checkpoint
from trainer.engine.run_folder import RunFolder
from trainer.engine.safe_reader import METADATA, SafeReader

from .test_checkpoint import Run


class Code:
    """Unpickled, it makes the folder ``trace``."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    run = Run()
    run.train(0, 3)
    return run.save(tmp_path / "checkpoints", 3)


def metadata_of(folder: Path) -> Metadata:
    return SafeReader(folder).read_metadata()


def rewrite(folder: Path, change: Callable[[Metadata], object]) -> None:
    metadata = metadata_of(folder)
    replaced = change(metadata)
    (folder / METADATA).write_bytes(pickle.dumps(metadata if replaced is None else replaced))


def code_as_the_whole(folder: Path, trace: Path) -> None:
    rewrite(folder, lambda metadata: Code(trace))


def code_in_planner_data(folder: Path, trace: Path) -> None:
    rewrite(folder, lambda metadata: metadata.planner_data.update(code=Code(trace)))


def code_in_storage_meta(folder: Path, trace: Path) -> None:
    rewrite(folder, lambda metadata: setattr(metadata.storage_meta, "modules", [Code(trace)]))


def code_in_a_name(folder: Path, trace: Path) -> None:
    rewrite(folder, lambda metadata: metadata.state_dict_metadata.update({"model.0.weight": Code(trace)}))


def code_in_a_value(kind: type) -> Callable[[Path, Path], None]:
    """In the bytes of the first entry of ``kind``, appended to its file, where the metadata then point."""

    def put(folder: Path, trace: Path) -> None:
        metadata = metadata_of(folder)
        index = next(i for i in metadata.storage_data if type(metadata.state_dict_metadata[i.fqn]).__name__ == kind.__name__)
        place = metadata.storage_data[index]
        path = folder / place.relative_path
        start = path.stat().st_size
        with path.open("ab") as file:
            torch.save(Code(trace), file)
        place.offset, place.length = start, path.stat().st_size - start
        (folder / METADATA).write_bytes(pickle.dumps(metadata))

    return put


PLACES = {
    "metadata": code_as_the_whole,
    "planner data": code_in_planner_data,
    "storage": code_in_storage_meta,
    "entry": code_in_a_name,
    "byte value": code_in_a_value(dcp.metadata.BytesStorageMetadata),
    "tensor value": code_in_a_value(dcp.metadata.TensorStorageMetadata),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_checkpoint_with_code(place: str, saved: Path, trace: Path) -> None:
    PLACES[place](saved, trace)
    with pytest.raises(WeightsError, match=r"(posix|nt)\.mkdir") as caught:
        Run().load(saved)
    assert "not run" in str(caught.value)
    assert not trace.exists()
    if place not in ("byte value", "tensor value"):
        for read in (checkpoint.tensor_names, lambda folder: checkpoint.read_tensors(folder, "model.")):
            with pytest.raises(WeightsError, match=r"mkdir"):
                read(saved)
    elif place == "tensor value":
        with pytest.raises(WeightsError, match=r"mkdir"):
            checkpoint.read_tensors(saved, "")
    assert not trace.exists()


def test_torch_would_have_run_it(saved: Path, trace: Path) -> None:
    """So that the tests above can fail."""
    code_in_planner_data(saved, trace)
    dcp.FileSystemReader(saved).read_metadata()
    assert trace.exists()


@pytest.mark.parametrize("name", ["../outside.distcp", "/etc/passwd", "deeper/file.distcp"])
def test_metadata_that_point_elsewhere(name: str, saved: Path) -> None:
    def elsewhere(metadata: Metadata) -> None:
        for place in metadata.storage_data.values():
            place.relative_path = name

    rewrite(saved, elsewhere)
    with pytest.raises(WeightsError, match="outside"):
        Run().load(saved)


@pytest.mark.parametrize("length", [-1, 1 << 60, "4", None])
def test_metadata_with_absurd_lengths(length: Any, saved: Path) -> None:
    rewrite(saved, lambda metadata: [setattr(place, "length", length) for place in metadata.storage_data.values()] and None)
    with pytest.raises(WeightsError):
        Run().load(saved)


@pytest.mark.parametrize("data", [b"", b"\x80", b"cos\nsystem\n(S'true'\ntR.", os.urandom(200), pickle.dumps({"a": 1})])
def test_metadata_that_are_none(data: bytes, saved: Path) -> None:
    (saved / METADATA).write_bytes(data)
    with pytest.raises(WeightsError):
        Run().load(saved)


def test_a_run_saved_by_an_earlier_version_resumes_bit_for_bit(tmp_path: Path) -> None:
    """As versions before this one wrote it, through ``dcp.save`` alone, and as torch itself reads it."""
    run = Run()
    run.train(0, 4)
    folder = tmp_path / "step-00000004"
    dcp.save(checkpoint._state(run.module, run.optimizer, run.ema), checkpoint_id=folder, no_dist=True)
    (folder / checkpoint.EXTRA).write_text('{"step": 4}')
    ours, torchs = Run(), Run()
    assert ours.load(folder) == {"step": 4}
    state = checkpoint._state(torchs.module, torchs.optimizer, torchs.ema)
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    for name, tensor in ours.module.state_dict().items():
        assert torch.equal(tensor, state["model"][name])
    assert ours.train(4, 8) == run.train(4, 8)


def test_the_checkpoints_of_the_other_trainings(tmp_path: Path, trace: Path) -> None:
    folder = RunFolder.__new__(RunFolder)
    path = tmp_path / "step-000001.pt"
    torch.save({"step": 1, "config": {}, "code": Code(trace)}, path)
    with pytest.raises(WeightsError, match="mkdir"):
        folder.read(path)
    assert not trace.exists()


def test_data_and_settings_are_only_text(tmp_path: Path, trace: Path) -> None:
    """TOML, indexes and shards hold no code; a pickle under their names is refused."""
    config = tmp_path / "config.toml"
    config.write_text(f"train = {{ folder = \"__import__('os').mkdir('{trace}')\" }}\n")
    assert read_toml(config)["train"]["folder"].startswith("__import__")
    for name in ("index.json", "shard.safetensors", "config.toml"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Code(trace)))
        read = {"index.json": Index.load, "shard.safetensors": lambda path: Shard(str(path)), "config.toml": read_toml}[name]
        with pytest.raises(MMAudioError):
            read(path)
    assert not trace.exists()

"""A safetensors file that lies in memory reads like one on disk."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from mmaudio_core.errors import WeightsError
from mmaudio_core.weights.safetensors_file import HeldTensors, MappedTensors, parse_header, read_header, write_safetensors


def test_bytes_and_file_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"a": torch.randn(3, 5), "b": torch.arange(7, dtype=torch.float16), "none": torch.zeros(0, 4)}
    write_safetensors(path, tensors, {"said": "so"})
    raw = bytearray(path.read_bytes())
    length = struct.unpack_from("<Q", raw)[0]
    header = parse_header(bytes(raw[8 : 8 + length]), len(raw), "memory")
    assert header == read_header(path)
    held = HeldTensors(torch.frombuffer(raw, dtype=torch.uint8), header)
    mapped = MappedTensors(path, header)
    assert list(held) == list(mapped)
    for name, value in tensors.items():
        assert torch.equal(held[name], value)
        assert torch.equal(mapped[name], value)
    with pytest.raises(WeightsError, match="memory is cut off"):
        parse_header(bytes(raw[8 : 8 + length]), len(raw) - 1, "memory")

"""CLIP's kept text features, and the room for weights in the CPU's own layout."""

from __future__ import annotations

import copy
import ctypes
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmaudio_core.features import room
from mmaudio_core.features.clip import CLIPEncoder
from mmaudio_core.features.repeats import TextCache
from mmaudio_core.spec.model import CLIPSpec

SPEC = CLIPSpec(32, 28, 1, 64, 64, 14, 77, 49408, 16, 2, 2)


@pytest.fixture
def encoder() -> Any:
    torch.manual_seed(0)
    module = CLIPEncoder(SPEC, image=False).eval().requires_grad_(False)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3 if p.ndim < 2 else p[0].numel() ** -0.5)
    return module


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts per run of the tower."""
    seen: list[int] = []
    encode = CLIPEncoder.encode_tokens

    def counted(self: CLIPEncoder, tokens: torch.Tensor) -> torch.Tensor:
        seen.append(tokens.shape[0])
        return encode(self, tokens)

    monkeypatch.setattr(CLIPEncoder, "encode_tokens", counted)
    return seen


def test_a_text_is_encoded_once(encoder: Any, runs: list[int]) -> None:
    texts = ["rain on a roof", "", "music", "rain on a roof"]
    out = encoder.encode_text(texts)
    assert runs == [1, 1, 1]
    torch.testing.assert_close(out, encoder.encode_text(texts, plain=True), rtol=1e-5, atol=1e-6)
    assert runs == [1, 1, 1, 4]
    assert not torch.allclose(out[0], out[2])
    assert torch.equal(encoder.encode_text(["music", "rain on a roof"]), out[[2, 0]])
    assert runs == [1, 1, 1, 4]
    assert encoder.remembers(["", "music"])
    assert not encoder.remembers(["", "a dog"])


def test_what_was_asked_before_changes_no_bit(encoder: Any) -> None:
    other = copy.deepcopy(encoder)
    other.encode_text(["b", "a dog barks"])
    wanted = encoder.encode_text(["a dog barks", "thunder"])
    assert torch.equal(other.encode_text(["thunder", "a dog barks", "c"])[[1, 0]], wanted)


def test_what_is_returned_can_be_changed(encoder: Any) -> None:
    first = encoder.encode_text(["rain"]).clone()
    encoder.encode_text(["rain"]).zero_()
    assert torch.equal(encoder.encode_text(["rain"]), first)


def test_other_weights_are_other_features(encoder: Any, runs: list[int]) -> None:
    first = encoder.encode_text(["rain"])
    encoder.to(torch.device("cpu"))  # where it lies does not matter
    encoder.positional_embedding.data = encoder.positional_embedding.data.clone()
    assert encoder.remembers(["rain"])
    with torch.no_grad():
        encoder.ln_final.weight.mul_(torch.linspace(0.5, 2, SPEC.text_width))
    assert not encoder.remembers(["rain"])
    second = encoder.encode_text(["rain"])
    assert not torch.allclose(first, second, atol=1e-3)
    encoder.load_state_dict({k: v.flip(0) for k, v in encoder.state_dict().items()}, assign=True)
    assert not encoder.remembers(["rain"])
    assert not torch.allclose(encoder.encode_text(["rain"]), second, atol=1e-3)
    encoder.double()
    assert not encoder.remembers(["rain"])
    assert runs == [1, 1, 1]


def test_the_oldest_texts_go_first() -> None:
    cache, made = TextCache(limit=2), []

    def features(row: tuple[int, ...]) -> torch.Tensor:
        made.append(row)
        return torch.tensor([[float(row[0])]])

    weights = [torch.zeros(1)]
    for rows in ([(1,), (2,)], [(1,)], [(3,)], [(1,), (3,)], [(2,)]):
        assert cache.get(weights, rows, features).flatten().tolist() == [row[0] for row in rows]
    assert made == [(1,), (2,), (3,), (2,)]
    assert cache.get(weights, [(i,) for i in range(5)], features).shape == (5, 1, 1)
    assert cache.holds(weights, [(3,), (4,)])
    assert not cache.holds(weights, [(2,)])
    assert not cache.holds([torch.zeros(1)], [(4,)])
    assert cache.holds(weights, [(4,)])


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    5000 kB\n"}
GROUP = "sys/fs/cgroup/memory."


@pytest.mark.parametrize(
    ("files", "kib"),
    [
        (MEMINFO, 5000),
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9000 kB\n"}, None),
        ({"proc/meminfo": "MemAvailable: many kB\n"}, None),
        (MEMINFO | {GROUP + "max": "max\n", GROUP + "current": "100", GROUP + "stat": "inactive_file 0\n"}, 5000),
        (MEMINFO | {GROUP + "max": "2048000", GROUP + "current": "1024000\n", GROUP + "stat": "anon 7\n"}, 1000),
        (MEMINFO | {GROUP + "max": "2048000", GROUP + "current": "1024000", GROUP + "stat": "inactive_file 512000\n"}, 1500),
        (MEMINFO | {GROUP + "max": "1024", GROUP + "current": "4096", GROUP + "stat": ""}, 0),
        (MEMINFO | {GROUP + "max": "1024"}, 5000),
    ],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], kib: int | None) -> None:
    assert room.linux_bytes(write(tmp_path, files)) == (None if kib is None else kib * 1024)


def test_available_memory_of_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:  10.\nPages active: 99.\nPages inactive:  5.\n"
    )
    assert room.pages_bytes(said) == 15 * 16384
    assert room.pages_bytes("nonsense") is None
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(room.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=said))
    assert room.available_bytes() == 15 * 16384

    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(room.subprocess, "run", fail)
    assert room.available_bytes() is None


def test_available_memory_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published networks are packed there too where 16 GiB are free."""

    def status(reference: Any) -> int:
        assert reference._obj.length == 64
        reference._obj.available = 16 << 30
        return 1

    monkeypatch.setattr(sys, "platform", "win32")
    kernel32 = SimpleNamespace(GlobalMemoryStatusEx=status)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    assert room.available_bytes() == 16 << 30
    assert room.has_room("Flow network", 2 << 30, room.available_bytes())
    kernel32.GlobalMemoryStatusEx = lambda _: 0
    assert room.available_bytes() is None


def test_room_is_decided_and_said(caplog: pytest.LogCaptureFixture) -> None:
    gib = 1 << 30
    with caplog.at_level(logging.INFO, "mmaudio"):
        assert room.has_room("CLIP image", 2 * gib, 4 * gib)
        assert not room.has_room("CLIP image", 2 * gib + 1, 4 * gib)
        assert room.has_room("Synchformer", gib, None)
        assert not room.has_room("Synchformer", gib + 1, None)
    assert "CLIP image: 2.15 GB of weights are laid out anew for the CPU (free memory: 4.3 GB)" in caplog.messages[0]
    assert "stay as they are" in caplog.messages[1]
    assert "unknown" in caplog.messages[3]

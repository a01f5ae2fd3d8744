"""Which kernels are chosen, and the sentences of those that cannot run."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from typing import Any

import pytest
import torch

from mmaudio_core.errors import InputError
from mmaudio_core.kernels import sets
from mmaudio_core.kernels.fastest import Fastest

CPU = torch.device("cpu")


def test_plain_pytorch_where_nothing_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert sets.choose_kernels("auto", CPU).name == "torch"
    assert sets.choose_kernels("compile", CPU).name == "torch"
    with pytest.raises(InputError, match=r"'triton' cannot run here: they need a CUDA device, and this is cpu\. Use"):
        sets.choose_kernels("triton", CPU)
    with pytest.raises(InputError, match=r"'cuda' cannot run here: [^.]*cpu\. Use auto or torch"):
        sets.choose_kernels("cuda", CPU)
    with pytest.raises(InputError, match="unknown; use one of auto, torch, triton, cuda, compile"):
        sets.choose_kernels("fast", CPU)


def test_auto_never_interprets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert sets.choose_kernels("auto", CPU).name == "torch"


@pytest.mark.parametrize(("able", "name"), [(("triton", "cuda"), "triton"), (("cuda",), "cuda"), ((), "torch")], ids=str)
def test_order_on_a_gpu(able: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("triton", "cuda"):
        monkeypatch.setattr(sets, f"{kind}_reason", lambda _, kind=kind: None if kind in able else "it is not there")
    named = dataclasses.replace(sets.torch_kernels(), name="triton")
    monkeypatch.setattr(sets, "triton_kernels", lambda _: named)
    assert sets.choose_kernels("auto", torch.device("cuda")).name == name


def test_triton_is_tried_before_it_is_chosen(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It imports without a C compiler or Python's headers too, and looks for them at its first launch."""
    pytest.importorskip(f"{__package__}.interpreter")
    from mmaudio_core.kernels.triton import swiglu

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    sets._launch_reason.cache_clear()
    assert sets.triton_reason(CPU) is None
    tries = []

    def launch(packed: torch.Tensor) -> torch.Tensor:
        tries.append(packed)
        raise RuntimeError("Failed to find C compiler. Please specify one\nand more")

    monkeypatch.setattr(swiglu, "swiglu", launch)
    assert sets.triton_reason(CPU) is None, "tried once for a device"
    sets._launch_reason.cache_clear()
    try:
        for _ in range(2):
            with pytest.raises(
                InputError, match=r"'triton' cannot run here: Triton cannot start a kernel \(RuntimeError: Failed to"
            ):
                sets.choose_kernels("triton", CPU)
        assert len(tries) == 1
        reason = sets._launch_reason(CPU)
    finally:
        sets._launch_reason.cache_clear()
    assert reason is not None
    assert "and more" not in reason
    monkeypatch.setattr(sets, "_launch_reason", lambda _: reason)
    monkeypatch.setattr(sets, "cuda_reason", lambda _: None)
    with caplog.at_level(logging.INFO, "mmaudio"):
        assert sets.choose_kernels("auto", torch.device("cuda")).name == "cuda"
    assert "The kernels of 'cuda' are used (triton: Triton cannot start a kernel (RuntimeError" in caplog.text


def test_every_set_has_the_references_signatures() -> None:
    pytest.importorskip("tests.kernels.interpreter" if __package__ is None else f"{__package__}.interpreter")
    plain = sets.torch_kernels()
    for other in (sets.triton_kernels(CPU), sets.cuda_kernels()):
        for field in dataclasses.fields(sets.Kernels):
            reference, own = getattr(plain, field.name), getattr(other, field.name)
            if field.name != "name" and reference is not None:
                assert list(inspect.signature(own).parameters) == list(inspect.signature(reference).parameters), field.name


def test_products_in_float32_are_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    function = sets._in_half(lambda x, y: x + y, lambda x, y: x - y)
    assert function(torch.ones(1), torch.ones(1)).item() == 0
    assert function(torch.ones(1).half(), torch.ones(1).half()).item() == 2


def test_the_fastest_is_found_once() -> None:
    timed: list[str] = []

    def timer(function: Any, device: torch.device) -> float:
        assert device == CPU
        timed.append(function())
        return {"slow": 3.0, "fast": 1.0}[function()]

    fastest = Fastest("Test", timer)
    candidates = {"slow": lambda: "slow", "fast": lambda: "fast"}
    assert [fastest(8, candidates, CPU), fastest(8, candidates, CPU)] == ["fast", "fast"]
    assert timed == ["slow", "fast"]
    fastest(9, candidates, CPU)
    assert len(timed) == 4

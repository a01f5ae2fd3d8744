"""Errors as the page shows them: a plain type, one sentence, and what to change."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .host import TINY, Host


def wrapped(host: Host, error: BaseException) -> Any:
    def fails(*args: Any) -> None:
        raise error

    return host.of("nodes.host.errors").plainly(fails)


@pytest.mark.parametrize("name", ["MMAudioError", "InputError", "SpecError", "MediaError", "WeightsError", "DownloadError"])
def test_errors_of_the_core_become_plain(host: Host, name: str) -> None:
    with pytest.raises(ValueError, match=r"^What was given; what to do\.$") as caught:
        wrapped(host, getattr(host.of("mmaudio_core.errors"), name)("What was given; what to do."))()
    assert type(caught.value) is ValueError
    assert type(caught.value.__cause__).__name__ == name


def test_a_full_gpu_keeps_its_type_and_says_what_to_change(host: Host) -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        wrapped(host, torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ..."))()
    assert type(caught.value) is torch.cuda.OutOfMemoryError
    said = str(caught.value)
    assert said.startswith("The GPU's memory is full: choose fp16 or bf16")
    assert "--lowvram" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    ],
    ids=["python", "linux", "windows"],
)
def test_a_full_computer_says_what_to_change(host: Host, error: Exception) -> None:
    with pytest.raises(MemoryError, match="The computer's memory is full: choose fp16 or bf16"):
        wrapped(host, error)()


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("x"), ZeroDivisionError(), KeyboardInterrupt()], ids=repr)
def test_what_is_no_message_to_the_user_stays(host: Host, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        wrapped(host, error)()
    assert caught.value is error


def test_interruption_passes(host: Host) -> None:
    stop = host.fake("comfy.model_management").InterruptProcessingException()
    with pytest.raises(type(stop)):
        wrapped(host, stop)()


def test_every_node_that_can_fail_is_wrapped(host: Host) -> None:
    plain = {name for name, node in host.nodes.items() if not hasattr(node.execute, "__wrapped__")}
    assert plain == {"LinearSigmas", "Noise"}


def test_a_lack_of_memory_in_a_node(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    model = host.run("LoadModel", model_file=TINY)[0]
    start = host.run("EmptyLatent", model=model)[0]
    pack, none = host.of("nodes.host.conditioning").pack, host.of("mmaudio_core.types").Features()

    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(host.fake("comfy.model_management"), "load_models_gpu", full)
    with pytest.raises(torch.cuda.OutOfMemoryError, match=r"memory is full: .* a shorter duration, fewer takes at once"):
        host.run("Sampler", model=model, latent=start, positive=pack(none, 77, 16), negative=pack(none, 77, 16))


def test_a_damaged_file(host: Host) -> None:
    whole = host.of("mmaudio_core.pipeline.files").EMBEDDED_FILE.read_bytes()
    (host.models / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    for node, name in (("LoadModel", "model_file"), ("LoadEncoders", "clip_file")):
        with pytest.raises(ValueError, match=r"cut\.safetensors") as caught:
            host.run(node, **{name: "cut.safetensors"})
        assert type(caught.value) is ValueError
        assert "\n" not in str(caught.value)


def test_an_unknown_precision(host: Host) -> None:
    for node, given in (("LoadModel", {"model_file": TINY}), ("LoadEncoders", {}), ("LoadPipeline", {"variant": TINY})):
        with pytest.raises(ValueError, match="dtype 'fp4' cannot be computed in; use one of"):
            host.run(node, precision="fp4", **given)

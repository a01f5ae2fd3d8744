"""Compiling the CUDA C++ kernels at run time: for every GPU, kept on disk, with reasons where it cannot be done."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmaudio_core.errors import DependencyError
from mmaudio_core.kernels.cuda import available, cache, driver, nvrtc, runtime
from mmaudio_core.kernels.cuda.runtime import ELEMENTS, ENTRIES, Case

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
CASES = [
    Case(stem, element, table, aligned)
    for stem in ENTRIES
    for element in ELEMENTS
    for table, aligned in ((element, True), (torch.float32, False))
]
SMALL = Case("heads", torch.bfloat16, torch.float32, True)


@pytest.fixture(scope="module")
def compiler() -> nvrtc.Compiler:
    try:
        return nvrtc.find()
    except DependencyError as error:
        pytest.skip(str(error))


def compile_case(compiler: nvrtc.Compiler, case: Case, target: str, *options: str) -> tuple[str, str]:
    source, headers = runtime.sources(case.stem)
    code, log = compiler.compile(source, f"{case.stem}.cu", target, headers, (*case.options, *options))
    return code.decode(errors="replace"), log


def expect_sound(ptx: str, case: Case, architecture: int) -> None:
    assert re.findall(r"\.visible \.entry (\w+)\(", ptx) == list(ENTRIES[case.stem])
    assert f".target sm_{architecture}" in ptx
    assert ".local" not in ptx, "registers were not enough, or an array was indexed at run time"
    assert (".f64" in ptx) == (case.stem == "snake"), "double precision is for snake's far arguments alone"
    for access in ("ld.global", "st.global"):
        assert bool(re.search(rf"{re.escape(access)}\S*\.v4\.[bfu]32", ptx)) == case.aligned, "16 bytes at once"
    with_instruction = case.element == torch.bfloat16 and architecture >= 80
    assert ("cvt.rn.bf16.f32" in ptx) == with_instruction


@pytest.mark.parametrize("element", ELEMENTS, ids=str)
@pytest.mark.parametrize("stem", ENTRIES)
def test_each_source_and_type_compiles(compiler: nvrtc.Compiler, stem: str, element: torch.dtype) -> None:
    """bfloat16 for the oldest GPU, which has no instruction for it; the others go through all GPUs."""
    known = [a for a in ARCHITECTURES if a in compiler.architectures]
    number = len(ELEMENTS) * list(ENTRIES).index(stem) + list(ELEMENTS).index(element)
    architecture = known[0] if element == torch.bfloat16 else known[number % len(known)]
    case = Case(stem, element, torch.float32, number % 2 == 0)
    expect_sound(compile_case(compiler, case, f"compute_{architecture}")[0], case, architecture)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_case_for_every_gpu(compiler: nvrtc.Compiler, architecture: int) -> None:
    if architecture not in compiler.architectures:
        pytest.skip(f"this NVRTC does not know sm_{architecture}")
    for case in CASES:
        expect_sound(compile_case(compiler, case, f"compute_{architecture}")[0], case, architecture)
        expect_no_spills(compile_case(compiler, case, f"sm_{architecture}", "--ptxas-options=-v")[1], case)


@pytest.mark.parametrize("stem", ENTRIES)
def test_registers_suffice(compiler: nvrtc.Compiler, stem: str) -> None:
    case = Case(stem, torch.bfloat16, torch.bfloat16, True)
    newest = max(a for a in ARCHITECTURES if a in compiler.architectures)
    code, log = compile_case(compiler, case, f"sm_{newest}", "--ptxas-options=-v")
    assert code.startswith("\x7fELF")
    expect_no_spills(log, case)


def expect_no_spills(log: str, case: Case) -> None:
    count = len(ENTRIES[case.stem])
    assert re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log) == [("0", "0")] * count, log
    registers = [int(number) for number in re.findall(r"Used (\d+) registers", log)]
    assert len(registers) == count
    assert max(registers) <= 128, "fewer than two blocks of 256 threads would fit"


def test_a_broken_source_gives_the_log(compiler: nvrtc.Compiler) -> None:
    source = 'extern "C" __global__ void f(float* x) { x[0] = wrong_name; }'
    with pytest.raises(nvrtc.CompileError, match=r"some\.cu did not compile for compute_90.*fault of the kernel") as raised:
        compiler.compile(source, "some.cu", "compute_90", {})
    assert 'some.cu(1): error: identifier "wrong_name" is undefined' in raised.value.log
    with pytest.raises(nvrtc.CompileError, match=r"could not open source file .cuda_fp16\.h."):
        compiler.compile("#include <cuda_fp16.h>", "some.cu", "compute_90", {})
    with pytest.raises(nvrtc.CompileError, match="invalid value for --gpu-architecture"):
        compiler.compile(source, "some.cu", "sm_12", {})


def test_what_is_compiled_for_a_gpu() -> None:
    compiler = nvrtc.Compiler(Path("x"), (12, 4), (75, 80, 90), None)  # type: ignore[arg-type]
    assert compiler.target((8, 0)) == "sm_80"
    assert compiler.target((8, 9)) == "compute_80"
    assert compiler.target((12, 0)) == "compute_90"
    with pytest.raises(DependencyError, match=r"capability 7\.0, and NVRTC 12\.4 compiles for 7\.5 and newer"):
        compiler.target((7, 0))


def test_names_of_the_library(tmp_path: Path) -> None:
    """On Linux, in NVIDIA's packages and in old wheels of torch, and on Windows; not the builtins, not alternative builds."""
    good = {
        "libnvrtc.so.13": 13, "libnvrtc.so.12": 12, "libnvrtc.so.11.2": 11, "libnvrtc-672ee683.so.11.2": 11,
        "nvrtc64_120_0.dll": 12, "nvrtc64_112_0.dll": 11, "nvrtc64_130_0.dll": 13,
    }  # fmt: skip
    for name in (
        *good, "libnvrtc.so.10.2", "libnvrtc.alt.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc-builtins.alt.so.13.0",
        "nvrtc-builtins64_124.dll", "nvrtc64_120_0.alt.dll", "libnvrtc_static.a",
    ):  # fmt: skip
        (tmp_path / name).write_text("not a library")
    assert {path.name: major for major, path in nvrtc.libraries([tmp_path])} == good
    with pytest.raises(DependencyError, match=r"is here, but .*cannot be used") as raised:
        nvrtc.load_first([tmp_path], 12)
    tried = re.findall(r"([\w.-]+) cannot be used", str(raised.value))
    assert [good[name] for name in tried] == [12, 12, 13, 13, 11, 11, 11], "torch's own version first"
    with pytest.raises(DependencyError, match=f"not found in {re.escape(str(tmp_path / 'empty'))}; a torch"):
        nvrtc.load_first([tmp_path / "empty"], 12)


def test_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available("cpu") == "CUDA kernels run on NVIDIA GPUs; this is cpu."
    if not torch.cuda.is_available():
        assert available("cuda") == "torch sees no CUDA device here."
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert available("cuda") == "This torch is built for AMD GPUs; CUDA kernels need one that is built for CUDA."
    with pytest.raises(DependencyError, match=r"cannot be used .*; install or update NVIDIA's driver"):
        driver.Driver("libno-such-driver.so.1")


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compiled."""
    targets: list[str] = []
    original = nvrtc.Compiler.compile

    def counted(self, source, name, architecture, *rest):  # type: ignore[no-untyped-def]
        targets.append(architecture)
        return original(self, source, name, architecture, *rest)

    monkeypatch.setattr(nvrtc.Compiler, "compile", counted)
    return targets


def test_a_kernel_is_compiled_once(compiler: nvrtc.Compiler, tmp_path: Path, count: list[str]) -> None:
    first = runtime.build(SMALL, "compute_90", compiler, tmp_path)
    assert runtime.build(SMALL, "compute_90", compiler, tmp_path) == first
    assert b".entry heads_parts" in first
    assert count == ["compute_90"]
    assert [path.suffix for path in tmp_path.iterdir()] == [".ptx"]
    runtime.build(SMALL, "compute_80", compiler, tmp_path)
    runtime.build(SMALL._replace(aligned=False), "compute_90", compiler, tmp_path)
    older = nvrtc.Compiler(compiler.path, (1, 0), compiler.architectures, compiler.library)
    runtime.build(SMALL, "compute_90", older, tmp_path)
    assert len(count) == len(list(tmp_path.iterdir())) == 4


PROCESS = """
import pathlib, runpy, sys
get = runpy.run_path(sys.argv[1])["get"]
folder, made = pathlib.Path(sys.argv[2]), 0
def make():
    global made
    made += 1
    return b"code" * 250_000
for _ in range(100):
    (folder / "entry").unlink(missing_ok=True)
    assert get("entry", make, folder) == b"code" * 250_000
print(made)
"""


def test_two_processes_write_one_entry(tmp_path: Path) -> None:
    """Each deletes and fetches it a hundred times; neither ever sees a part of it, which would be logged."""
    command = [sys.executable, "-c", PROCESS, str(Path(cache.__file__)), str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert [errors for _, errors in said] == ["", ""]
    assert sum(int(made) for made, _ in said) >= 100
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-1], lambda b: b[:60] + b"x" + b[61:], lambda b: b"x" + b])
def test_a_damaged_entry_is_made_anew(damage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    made = []

    def make() -> bytes:
        made.append(1)
        return b"code " * 20

    for _ in range(2):
        assert cache.get("entry", make, tmp_path) == b"code " * 20
    path = tmp_path / "entry"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING, "mmaudio"):
        for _ in range(2):
            assert cache.get("entry", make, tmp_path) == b"code " * 20
    assert len(made) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"The compiled kernel {path} is not usable (it is damaged); it is compiled again."
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["entry"]


def test_where_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.default_folder({}) == Path.home() / ".cache" / "mmaudio-graph" / "kernels"
    monkeypatch.setenv("MMAUDIO_CACHE", str(tmp_path))
    assert cache.get("entry", lambda: b"code") == b"code"
    assert (tmp_path / "kernels" / "entry").exists()
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING, "mmaudio"):
        assert cache.get("entry", lambda: b"code", tmp_path / "file") == b"code"
    assert "will be compiled again next time" in caplog.text


def test_keys_are_of_parts_in_order() -> None:
    parts = (("a", "b"), ("ab",), ("b", "a"), ("a", "b", ""), ("", "ab"))
    assert len({cache.key(*part) for part in parts}) == len(parts)

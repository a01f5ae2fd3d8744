"""From a kernel's source to its launch: compiled for the device at hand, kept on disk, loaded, started on torch's stream."""

from __future__ import annotations

import ctypes
import os
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from ...errors import InputError, MMAudioError
from . import cache as disk
from . import driver, nvrtc

ENTRIES = {
    "adaln": ("adaln",),
    "gate": ("gated_add", "gated_add_adaln"),
    "heads": ("heads_parts", "heads_interleaved"),
    "snake": ("snake_time", "snake_channels"),
}
"""The sources, and the kernels in each."""
ELEMENTS = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "BFloat"}
LONGEST_GRID = 2**31 - 1


class Case(NamedTuple):
    """One compilation of a source.

    element: dtype of the activations. table: dtype of modulations or norm weights, that one or float32.
    aligned: whether all addresses allow accesses of 16 bytes.
    """

    stem: str
    element: torch.dtype
    table: torch.dtype
    aligned: bool

    @property
    def options(self) -> tuple[str, ...]:
        return (
            f"-DELEMENT={ELEMENTS[self.element]}",
            f"-DTABLE={ELEMENTS[self.table]}",
            f"-DALIGNED={'true' if self.aligned else 'false'}",
        )


class Launch(NamedTuple):
    """A kernel with everything that its start needs; ``arguments`` is its one parameter."""

    case: Case
    entry: str
    grid: int
    block: int
    shared_bytes: int
    arguments: ctypes.Structure


def available(device: torch.device | str) -> str | None:
    """None when the CUDA kernels run on ``device``, else the reason in a sentence. Tried once, by building one of them."""
    device = torch.device(device)
    if device.type != "cuda":
        return f"CUDA kernels run on NVIDIA GPUs; this is {device.type}."
    if torch.version.hip:
        return "This torch is built for AMD GPUs; CUDA kernels need one that is built for CUDA."
    if not torch.cuda.is_available():
        return "torch sees no CUDA device here."
    return _tried(_index(device))


def launch(wanted: Launch, device: torch.device) -> None:
    """Starts a kernel on torch's current stream of ``device``.

    At its first use a kernel is built, which takes a second, and loaded, which a CUDA graph's capture does not allow: call it
    once before.

    Raises:
        InputError: when ``device`` is none for CUDA kernels, or there is too much to do.
        MMAudioError: when the kernel cannot be built or started.
    """
    if device.type != "cuda":
        raise InputError(f"A CUDA kernel was given tensors on {device}; it needs them on a CUDA device.")
    check_grid(wanted)
    function, context = _function(wanted.case, wanted.entry, _index(device))
    stream = torch.cuda.current_stream(device).cuda_stream
    driver.find().launch(function, context, stream, wanted.grid, wanted.block, wanted.shared_bytes, wanted.arguments)


def check_grid(wanted: Launch) -> None:
    """Refuses more blocks than a launch may have.

    Raises:
        InputError: when there are.
    """
    if wanted.grid > LONGEST_GRID:
        raise InputError(f"{wanted.entry} would need {wanted.grid} blocks, and a launch has at most {LONGEST_GRID}; give less.")


def build(case: Case, target: str, compiler: nvrtc.Compiler, folder: str | os.PathLike[str] | None = None) -> bytes:
    """Code of ``case`` for ``target`` ("sm_90" or "compute_90"), from the cache in ``folder`` or from the compiler.

    Raises:
        CompileError: when the source does not compile.
    """
    source, headers = sources(case.stem)
    version = "{}.{}".format(*compiler.version)
    texts = (text for pair in headers.items() for text in pair)
    name = disk.key(version, target, *case.options, source, *texts)
    kind = "cubin" if target.startswith("sm_") else "ptx"
    return disk.get(
        f"{case.stem}-{target}-{name[:40]}.{kind}",
        lambda: compiler.compile(source, f"{case.stem}.cu", target, headers, case.options)[0],
        folder,
    )


@lru_cache(maxsize=len(ENTRIES))
def sources(stem: str) -> tuple[str, dict[str, str]]:
    """A kernel's source, and the headers that it may include by name."""
    folder = Path(__file__).parent
    headers = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.cuh"))}
    return (folder / f"{stem}.cu").read_text(encoding="utf-8"), headers


@cache
def load(case: Case, index: int) -> dict[str, int]:
    """The driver's handles of a case's kernels on CUDA device ``index``, by name.

    Raises:
        MMAudioError: when the compiler or driver is missing or refuses the kernel.
    """
    compiler = nvrtc.find()
    code = build(case, compiler.target(torch.cuda.get_device_capability(index)), compiler)
    return driver.find().load(code, ENTRIES[case.stem], _context(index))


@cache
def _function(case: Case, entry: str, index: int) -> tuple[int, int]:
    return load(case, index)[entry], _context(index)


@cache
def _context(index: int) -> int:
    return driver.find().context(index)


@cache
def _tried(index: int) -> str | None:
    try:
        load(Case("adaln", torch.float32, torch.float32, True), index)
    except (MMAudioError, OSError) as error:
        return str(error).partition("\n")[0]
    return None


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index

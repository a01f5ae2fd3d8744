"""CUDA C++ to machine code with the compiler library (NVRTC) that comes with torch; needs neither a toolkit nor a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from ...errors import DependencyError, MMAudioError

log = logging.getLogger("mmaudio")
OLDEST_MAJOR = 11
LINUX, WINDOWS = ("libnvrtc", r"libnvrtc(?:-[0-9a-f]+)?\.so\.(\d+)"), ("nvrtc", r"nvrtc64_(\d+)\d_0\.dll")
"""What file names start with, and the whole name; its group is the major version."""


class CompileError(MMAudioError, RuntimeError):
    """A kernel's source did not compile; ``log`` is what the compiler said."""

    def __init__(self, name: str, architecture: str, log: str) -> None:
        super().__init__(f"{name} did not compile for {architecture}; this is a fault of the kernel, please report it.\n{log}")
        self.log = log


@dataclass(frozen=True)
class Compiler:
    """A loaded NVRTC.

    version: (major, minor). architectures: compute capabilities that it knows, as 10 * major + minor, ascending.
    """

    path: Path
    version: tuple[int, int]
    architectures: tuple[int, ...]
    library: ctypes.CDLL

    def target(self, capability: tuple[int, int]) -> str:
        """What to compile for on a device of this compute capability: its machine code ("sm_90") or, for a device newer
        than this compiler, the newest portable code that it knows ("compute_120"), which the driver finishes.

        Machine code is preferred because it also runs where the driver is older than the compiler, within one major version.

        Raises:
            DependencyError: when the device is too old for this compiler.
        """
        wanted = 10 * capability[0] + capability[1]
        if wanted in self.architectures:
            return f"sm_{wanted}"
        older = [known for known in self.architectures if known < wanted]
        if not older:
            raise DependencyError(
                f"The GPU has compute capability {wanted / 10}, and NVRTC {self.version[0]}.{self.version[1]} compiles for "
                f"{self.architectures[0] / 10} and newer; use a torch that was built for this GPU."
            )
        return f"compute_{older[-1]}"

    def compile(
        self, source: str, name: str, architecture: str, headers: Mapping[str, str], options: Sequence[str] = ()
    ) -> tuple[bytes, str]:
        """Compiles ``source``, called ``name`` in messages, and returns (code, log).

        architecture: "sm_90" gives machine code (a cubin), "compute_90" gives PTX, a text.
        headers: sources that ``#include`` finds under their names; there are no others.

        Raises:
            CompileError: with the compiler's messages.
        """
        program = ctypes.c_void_p()
        texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
        names = (ctypes.c_char_p * len(headers))(*(header.encode() for header in headers))
        self._check(
            self.library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names),
            name,
            architecture,
        )
        try:
            words = [f"--gpu-architecture={architecture}", "--std=c++17", *options]
            given = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
            status = self.library.nvrtcCompileProgram(program, len(words), given)
            said = self._get(program, "ProgramLog", name, architecture).rstrip(b"\0").decode(errors="replace")
            if status:
                raise CompileError(name, architecture, said or self._error(status))
            return self._get(program, "CUBIN" if architecture.startswith("sm_") else "PTX", name, architecture), said
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))

    def _get(self, program: ctypes.c_void_p, what: str, name: str, architecture: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), name, architecture)
        text = ctypes.create_string_buffer(size.value)
        self._check(getattr(self.library, f"nvrtcGet{what}")(program, text), name, architecture)
        return text.raw

    def _check(self, status: int, name: str, architecture: str) -> None:
        if status:
            raise CompileError(name, architecture, self._error(status))

    def _error(self, status: int) -> str:
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return f"NVRTC says {self.library.nvrtcGetErrorString(status).decode()}."


@lru_cache(maxsize=1)
def find() -> Compiler:
    """The compiler that came with torch, or else one of this Python environment or of an installed toolkit.

    Raises:
        DependencyError: when there is none that works, with the reason and where was looked.
    """
    if torch.version.hip:
        raise DependencyError("This torch is built for AMD GPUs; CUDA kernels need one that is built for CUDA.")
    return load_first(folders(), None if torch.version.cuda is None else int(torch.version.cuda.split(".")[0]))


def load_first(places: Sequence[Path], major: int | None) -> Compiler:
    """The first NVRTC in ``places`` that can be loaded, one of version ``major`` before others, newer ones before older.

    Raises:
        DependencyError: when none can be.
    """
    found = sorted(libraries(places), key=lambda entry: (entry[0] != major, -entry[0]))
    failures = []
    for _, path in found:
        try:
            compiler = open_library(path)
        except (OSError, AttributeError) as error:
            failures.append(f"{path} cannot be used ({error})")
        else:
            log.debug("kernels are compiled by %s, version %d.%d", path, *compiler.version)
            return compiler
    if failures:
        raise DependencyError("The CUDA run-time compiler (NVRTC) is here, but " + "; ".join(failures) + ".")
    looked = ", ".join(str(place) for place in places) or "no folder that exists"
    raise DependencyError(
        f"The CUDA run-time compiler (NVRTC) was not found in {looked}; a torch that is built for CUDA brings it."
    )


def folders() -> list[Path]:
    """Where NVRTC may be: with torch and NVIDIA's packages, in the environment, in a toolkit; those that exist."""
    ours = Path(torch.__file__).parent
    site = [ours.parent / "nvidia"]
    if spec := importlib.util.find_spec("nvidia"):
        site += [Path(place) for place in spec.submodule_search_locations or ()]
    below = ("cu13/lib", "cu13/bin/x86_64", "cu13/bin", "cuda_nvrtc/lib", "cuda_nvrtc/bin")
    wanted = [ours / "lib", *(place / part for place in site for part in below)]
    wanted += [Path(sys.prefix) / "lib", Path(sys.prefix) / "Library" / "bin"]
    if toolkit := os.environ.get("CUDA_PATH") or os.environ.get("CUDA_HOME"):
        wanted += [Path(toolkit) / part for part in ("lib64", "lib", "bin", "bin/x64")]
    return list(dict.fromkeys(place for place in wanted if place.is_dir()))


def libraries(places: Sequence[Path]) -> Iterator[tuple[int, Path]]:
    """(major version, path) of every NVRTC in ``places``; builtins and alternative builds have other names."""
    for place in places:
        for start, pattern in (LINUX, WINDOWS):
            for path in sorted(place.glob(f"{start}*")):
                match = re.match(pattern, path.name)
                if match and int(match[1]) >= OLDEST_MAJOR:
                    yield int(match[1]), path


def open_library(path: Path) -> Compiler:
    """Loads NVRTC from ``path``, its builtins first: it looks for them by name alone and would not see its own folder.

    Raises:
        OSError, AttributeError: when it cannot be loaded, does not answer, or is older than CUDA 11.2.
    """
    for builtins in sorted((*path.parent.glob("libnvrtc-builtins*"), *path.parent.glob("nvrtc-builtins*"))):
        if ".alt." not in builtins.name:
            try:
                ctypes.CDLL(str(builtins))
            except OSError as error:
                log.debug("%s cannot be loaded: %s", builtins, error)
    library = ctypes.CDLL(str(path))
    numbers = (ctypes.c_int(), ctypes.c_int(), ctypes.c_int())
    _ = library.nvrtcGetCUBIN
    if library.nvrtcVersion(ctypes.byref(numbers[0]), ctypes.byref(numbers[1])):
        raise OSError("it does not say its version")
    if library.nvrtcGetNumSupportedArchs(ctypes.byref(numbers[2])) or not numbers[2].value:
        raise OSError("it does not say for which GPUs it compiles")
    known = (ctypes.c_int * numbers[2].value)()
    if library.nvrtcGetSupportedArchs(known):
        raise OSError("it does not say for which GPUs it compiles")
    return Compiler(path, (numbers[0].value, numbers[1].value), tuple(sorted(known)), library)

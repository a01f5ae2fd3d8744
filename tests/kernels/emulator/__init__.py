"""CUDA C++ kernels without a GPU: their sources, built by the host's C++ compiler for the device in device.cpp.

What stands in for the GPU is a driver library, so that the launchers and ``mmaudio_core.kernels.cuda.driver`` are tested too.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mmaudio_core.kernels.cuda import runtime
from mmaudio_core.kernels.cuda.driver import Driver

HERE = Path(__file__).parent
KERNELS = Path(runtime.__file__).parent
COMPILER = next((found for name in ("g++", "c++", "clang++") if (found := shutil.which(name))), None)
FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wno-unknown-pragmas")


def missing() -> str | None:
    """Why there can be no emulator here, or None."""
    if sys.platform != "linux":
        return "the emulator of a CUDA device needs Linux (its threads are made by makecontext)"
    return None if COMPILER else "the emulator of a CUDA device needs a C++ compiler, and there is none"


class Emulator:
    """Builds kernels into ``folder``, which may be kept: what was built from the same texts is used again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drivers: dict[runtime.Case, Driver] = {}

    def launch(self, wanted: runtime.Launch, device: torch.device) -> None:
        """Stands for ``runtime.launch``, for tensors on the CPU."""
        assert device.type == "cpu"
        runtime.check_grid(wanted)
        if wanted.case not in self._drivers:
            source, _ = runtime.sources(wanted.case.stem)
            self._drivers[wanted.case] = self.build(source, runtime.ENTRIES[wanted.case.stem], wanted.case.options)
        driver = self._drivers[wanted.case]
        context = driver.context(0)
        function = driver.load(b"", (wanted.entry,), context)[wanted.entry]
        driver.launch(function, context, 0, wanted.grid, wanted.block, wanted.shared_bytes, wanted.arguments)

    def build(self, source: str, entries: Sequence[str], options: Sequence[str]) -> Driver:
        """A driver whose modules hold the kernels ``entries`` of ``source``."""
        headers = {path.name: path for folder in (KERNELS, HERE) for path in folder.glob("*.cuh")}
        headers["device.hpp"] = HERE / "device.hpp"
        table = "".join(f'{{"{entry}", [](const void* a) {{ call({entry}, a); }}}}, ' for entry in entries)
        unit = f'#include "device.hpp"\n{source}\nconst Kernel kernels[] = {{{table}{{nullptr, nullptr}}}};\n'
        texts = [unit, *options, *(path.read_text() for path in headers.values()), (HERE / "device.cpp").read_text()]
        place = self._folder / hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
        library = place / "libcuda.so"
        if not library.exists():
            place.mkdir(parents=True, exist_ok=True)
            for name, path in headers.items():
                shutil.copyfile(path, place / name)
            (place / "kernels.cpp").write_text(unit)
            # The device brings the sanitizer's handlers itself: linked without it, and not checked by it.
            checked = ("-O1", "-fno-strict-aliasing", "-fsanitize=alignment,bounds", *options)
            self._compile("-c", *checked, str(place / "kernels.cpp"), "-o", str(place / "kernels.o"))
            device = self._device(hashlib.sha256(texts[-1].encode() + headers["device.hpp"].read_bytes()).hexdigest()[:24])
            self._compile("-shared", str(place / "kernels.o"), str(device), "-o", str(place / "new.so"))
            (place / "new.so").replace(library)
        return Driver(str(library))

    def _device(self, name: str) -> Path:
        path = self._folder / f"{name}.o"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._compile("-c", "-O2", str(HERE / "device.cpp"), "-o", str(path))
        return path

    @staticmethod
    def _compile(*arguments: str) -> None:
        assert COMPILER
        done = subprocess.run([COMPILER, *FLAGS, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

"""The CUDA driver by ctypes: loads compiled kernels into torch's context and launches them on a stream."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_uint, c_void_p
from functools import lru_cache

from ...errors import DependencyError, MMAudioError

ERROR_LOG_BUFFER, ERROR_LOG_SIZE, LOG_BYTES = 5, 6, 4096
"""Two of cuModuleLoadDataEx's options (CUjit_option), and how much of a message is kept."""
NAMES = (
    "cuInit",
    "cuDeviceGet",
    "cuDevicePrimaryCtxRetain",
    "cuCtxGetCurrent",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
    "cuModuleLoadDataEx",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    "cuGetErrorName",
)


class DriverError(MMAudioError, RuntimeError):
    """The CUDA driver refused something; the message has its error name, and its log where it gave one."""


class Driver:
    """The driver's library at ``path`` (default: this system's).

    Raises:
        DependencyError: when it is not there or too old.
        DriverError: when it finds no device.
    """

    def __init__(self, path: str | None = None) -> None:
        path = path or ("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        try:
            library = ctypes.CDLL(path)
            for name in NAMES:
                getattr(library, name).restype = c_int
        except (OSError, AttributeError) as error:
            raise DependencyError(f"The CUDA driver cannot be used ({error}); install or update NVIDIA's driver.") from error
        self._library = library
        library.cuLaunchKernel.argtypes = [c_void_p, *[c_uint] * 7, c_void_p, c_void_p, c_void_p]
        self._check(library.cuInit(0), "cuInit")

    def context(self, index: int) -> int:
        """The context that torch, too, uses on its device ``index``; it stays retained."""
        device, context = c_int(), c_void_p()
        self._check(self._library.cuDeviceGet(byref(device), index), "cuDeviceGet")
        self._check(self._library.cuDevicePrimaryCtxRetain(byref(context), device), "cuDevicePrimaryCtxRetain")
        return context.value or 0

    @contextmanager
    def current(self, context: int) -> Iterator[None]:
        """Makes ``context`` this thread's current one within the block, if it is not."""
        now = c_void_p()
        self._check(self._library.cuCtxGetCurrent(byref(now)), "cuCtxGetCurrent")
        if now.value == context:
            yield
            return
        self._check(self._library.cuCtxPushCurrent_v2(c_void_p(context)), "cuCtxPushCurrent")
        try:
            yield
        finally:
            self._check(self._library.cuCtxPopCurrent_v2(byref(now)), "cuCtxPopCurrent")

    def load(self, code: bytes, entries: tuple[str, ...], context: int) -> dict[str, int]:
        """The functions ``entries`` of a module of ``code``, machine code or PTX; the module is never unloaded.

        Raises:
            DriverError: when the driver does not take the code, with what it says.
        """
        module, said = c_void_p(), ctypes.create_string_buffer(LOG_BYTES)
        options = (c_int * 2)(ERROR_LOG_BUFFER, ERROR_LOG_SIZE)
        values = (c_void_p * 2)(ctypes.addressof(said), LOG_BYTES)
        functions = {}
        with self.current(context):
            # A zero ends PTX; machine code knows its own length.
            status = self._library.cuModuleLoadDataEx(byref(module), c_char_p(code + b"\0"), 2, options, values)
            self._check(status, "cuModuleLoadDataEx", said.value.decode(errors="replace"))
            for entry in entries:
                function = c_void_p()
                self._check(self._library.cuModuleGetFunction(byref(function), module, entry.encode()), entry)
                functions[entry] = function.value or 0
        return functions

    def launch(
        self, function: int, context: int, stream: int, grid: int, block: int, shared_bytes: int, arguments: ctypes.Structure
    ) -> None:
        """Starts ``grid`` blocks of ``block`` threads on ``stream``; ``arguments`` is the kernel's one parameter.

        Waits for nothing and allocates nothing, so it can be captured into a CUDA graph.

        Raises:
            DriverError: when the driver refuses the launch.
        """
        parameters = (c_void_p * 1)(ctypes.addressof(arguments))
        with self.current(context):
            status = self._library.cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared_bytes, stream, parameters, None)
        self._check(status, "cuLaunchKernel")

    def _check(self, status: int, what: str, said: str = "") -> None:
        if status:
            name = c_char_p()
            self._library.cuGetErrorName(status, byref(name))
            told = name.value.decode() if name.value else f"error {status}"
            raise DriverError(f"{what} failed with {told}. {said}".rstrip())


@lru_cache(maxsize=1)
def find() -> Driver:
    """This system's driver. Raises what ``Driver`` does."""
    return Driver()

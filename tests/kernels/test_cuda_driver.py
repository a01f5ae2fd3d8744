"""The driver by ctypes, on the emulated device, and that the emulated device sees what CUDA leaves undefined."""

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path

import pytest
import torch

from mmaudio_core.errors import DependencyError
from mmaudio_core.kernels.adaln import adaln as adaln_reference
from mmaudio_core.kernels.cuda import available, driver, nvrtc, runtime
from mmaudio_core.kernels.cuda.adaln import adaln
from mmaudio_core.kernels.cuda.driver import Driver, DriverError
from mmaudio_core.kernels.cuda.gate import gated_add

from .emulator import Emulator, missing

SOURCE = """
extern __shared__ float shared[];
struct Arguments { float* x; long long n; int wrong; };
struct alignas(16) Four { float at[4]; };

// x[i] becomes its mirror image's value plus the warp's largest distance; ``wrong`` breaks one rule.
extern "C" __global__ void mirror(const Arguments a) {
    const int i = threadIdx.x;
    shared[i] = a.x[i];
    if (a.wrong == 1 && i == 5) return;
    if (a.wrong == 2 && i == 40) __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    if (a.wrong == 3) shared[blockDim.x] = 1.0f;
    if (a.wrong == 4) a.x[0] = reinterpret_cast<const Four*>(a.x + 1)->at[0];
    if (a.wrong == 5) {
        float few[4] = {1, 2, 3, 4};
        a.x[0] = few[i];
    }
    if (a.wrong != 6) __syncthreads();
    const float other = shared[blockDim.x - 1 - i];
    a.x[i] = other + __shfl_xor_sync(0xffffffffu, (float)i, 31) * 1000 + a.n;
}
"""


class Arguments(ctypes.Structure):
    _fields_ = [("x", ctypes.c_void_p), ("n", ctypes.c_int64), ("wrong", ctypes.c_int)]


@pytest.fixture(scope="module")
def emulated(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    if reason := missing():
        pytest.skip(reason)
    kept = getattr(pytestconfig, "cache", None)
    folder = Path(kept.mkdir("cuda_emulator")) if kept else tmp_path_factory.mktemp("cuda_emulator")
    case = runtime.Case("adaln", torch.float32, torch.float32, True)
    return Emulator(folder).build(SOURCE, ("mirror",), case.options)


def run(emulated: Driver, wrong: int = 0, block: int = 64, shared_bytes: int = 256) -> torch.Tensor:
    x = torch.arange(64, dtype=torch.float32)
    context = emulated.context(0)
    function = emulated.load(b"", ("mirror",), context)["mirror"]
    emulated.launch(function, context, 0, 1, block, shared_bytes, Arguments(x.data_ptr(), 7, wrong))
    return x


def test_a_launch(emulated: Driver) -> None:
    i = torch.arange(64)
    assert torch.equal(run(emulated), (63 - i + (i ^ 31) * 1000 + 7).float())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (1, "a thread returned before a barrier that others wait at"),
        (2, "(at a barrier that the others never meet|at different shuffles)"),
        (3, "a write past the shared memory that was asked for"),
        (4, "an address is no multiple of its access"),
        (5, "an index is outside its array"),
    ],
)
def test_what_cuda_leaves_undefined_is_seen(emulated: Driver, wrong: int, message: str) -> None:
    with pytest.raises(DriverError, match=f"cuLaunchKernel failed with .*{message}"):
        run(emulated, wrong)


def test_a_missing_barrier_is_seen(emulated: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards = run(emulated, 6)
    monkeypatch.setenv("EMULATOR_BACKWARDS", "1")
    assert not torch.equal(forwards, run(emulated, 6))
    assert bool(forwards.isnan().any())
    assert torch.equal(run(emulated), run(emulated))


def test_return_codes_are_checked(emulated: Driver) -> None:
    with pytest.raises(DriverError, match="cuLaunchKernel failed with an argument is not valid"):
        run(emulated, block=2048)
    with pytest.raises(DriverError, match="cuDeviceGet failed"):
        emulated.context(3)
    context = emulated.context(0)
    with pytest.raises(DriverError, match=r"cuModuleLoadDataEx failed with .*\. there is no such code"):
        emulated.load(b"broken", (), context)
    with pytest.raises(DriverError, match="other failed"):
        emulated.load(b"", ("other",), context)
    run(emulated)  # and the contexts are in order


def test_a_library_that_is_no_driver() -> None:
    with pytest.raises(DependencyError, match="The CUDA driver cannot be used"):
        Driver(ctypes.util.find_library("c"))


def test_from_source_to_a_loaded_kernel(
    emulated: Driver, emulator_of_adaln: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``available`` on a device that torch is made to see: compiled by NVRTC, kept, loaded; a refusal becomes the reason."""
    try:
        nvrtc.find()
    except DependencyError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("MMAUDIO_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(driver, "find", lambda: emulator_of_adaln)
    caches = (runtime.load, runtime._tried, runtime._context, runtime._function)
    try:
        for cached in caches:
            cached.cache_clear()
        assert available("cuda:0") is None
        (kept,) = (tmp_path / "kernels").iterdir()
        assert kept.name.startswith("adaln-sm_90-")
        assert kept.suffix == ".cubin"
        for cached in caches:
            cached.cache_clear()
        monkeypatch.setattr(driver, "find", lambda: emulated)
        assert available("cuda:0") == "adaln failed with an argument is not valid."
    finally:
        for cached in caches:
            cached.cache_clear()


@pytest.fixture
def emulator_of_adaln(emulated: Driver, tmp_path: Path) -> Driver:
    source, _ = runtime.sources("adaln")
    case = runtime.Case("adaln", torch.float32, torch.float32, True)
    return Emulator(tmp_path / "emulator").build(source, ("adaln",), case.options)


def modulated(x: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return adaln(x, table[:, :64], table[:, 64:]), adaln_reference(x, table[:, :64], table[:, 64:])


@pytest.fixture
def gpu() -> str:
    if reason := available("cuda"):
        pytest.skip(reason)
    return "cuda"


@pytest.mark.gpu
def test_a_captured_graph_launches_again(gpu: str) -> None:
    x, table = torch.randn(2, 77, 64, device=gpu), torch.randn(2, 128, device=gpu)
    modulated(x, table)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual = adaln(x, table[:, :64], table[:, 64:])
    for _ in range(3):
        x.normal_()
        graph.replay()
        torch.testing.assert_close(actual, modulated(x, table)[1], rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_launches_are_on_the_current_stream(gpu: str) -> None:
    """Behind work of its stream, which here takes long before it writes the input."""
    x, table = torch.zeros(2, 77, 64, device=gpu), torch.randn(2, 128, device=gpu)
    modulated(x, table)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        x.normal_()
        actual = adaln(x, table[:, :64], table[:, 64:])
    stream.synchronize()
    torch.testing.assert_close(actual, modulated(x, table)[1], rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_every_half_is_converted(gpu: str) -> None:
    """x + 0 * 0 of all 65536 patterns; the conversions are inline PTX, which only a GPU runs."""
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.arange(-(2**15), 2**15, device=gpu).to(torch.int16).view(dtype).view(1, 1024, 64)
        zero = torch.zeros_like(x)
        torch.testing.assert_close(gated_add(x, zero, zero[:, 0]), x, rtol=0, atol=0, equal_nan=True)

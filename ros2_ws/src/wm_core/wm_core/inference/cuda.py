"""The few calls of the CUDA driver that running an engine needs: device, stream, memory, graph.

Through ctypes on ``libcuda.so.1``, which every machine with an NVIDIA driver has: no toolkit, no Python package. Names
and signatures are those of the CUDA Driver API (docs.nvidia.com/cuda/cuda-driver-api). Streams and memory made here
serve TensorRT as well, as both use the device's primary context.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from ctypes import byref, c_char, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.inference.base import BackendUnavailableError, DeviceMemoryError, InferenceError

LIBRARY = "libcuda.so.1"
# Values of cuda.h.
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_ATTRIBUTES = {"major": 75, "minor": 76, "integrated": 18}  # CUdevice_attribute
_HOST_ALLOC_DEVICEMAP = 2  # CU_MEMHOSTALLOC_DEVICEMAP
_STREAM_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        name: as the driver names it. compute_capability: major, minor.
        memory_bytes: in all. integrated: whether it shares memory with the CPU.
        driver_version: of CUDA, that the driver supports.
    """

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    integrated: bool
    driver_version: str

    @property
    def architecture(self) -> str:
        """E.g. ``SM89``."""
        return f"SM{self.compute_capability[0]}{self.compute_capability[1]}"

    def __str__(self) -> str:
        return f"{self.name} ({self.architecture}, {self.memory_bytes / 2**30:.0f} GiB, CUDA {self.driver_version})"


class Driver:
    """The loaded library; every call raises where it does not return CUDA_SUCCESS.

    Raises:
        OSError: the library is not there.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        self._library = ctypes.CDLL(library)
        self._library.cuGetErrorString.argtypes = [c_int, ctypes.POINTER(c_char_p)]
        self.call("cuInit", c_uint(0))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            DeviceMemoryError: CUDA_ERROR_OUT_OF_MEMORY.
            InferenceError: another error; the message has the driver's text.
        """
        code = getattr(self._library, name)(*arguments)
        if code == 0:
            return
        text = c_char_p()
        self._library.cuGetErrorString(code, byref(text))
        words = (text.value or b"unknown").decode()
        kind = DeviceMemoryError if code == _OUT_OF_MEMORY else InferenceError
        raise kind(f"CUDA: {name} failed with {code} ({words})")

    def device(self, index: int = 0) -> Device:
        """The properties of a GPU."""
        handle, name, size, version = c_int(), (c_char * 256)(), c_size_t(), c_int()
        self.call("cuDeviceGet", byref(handle), c_int(index))
        self.call("cuDeviceGetName", name, c_int(256), handle)
        self.call("cuDeviceTotalMem_v2", byref(size), handle)
        self.call("cuDriverGetVersion", byref(version))
        found = {}
        for key, attribute in _ATTRIBUTES.items():
            value = c_int()
            self.call("cuDeviceGetAttribute", byref(value), c_int(attribute), handle)
            found[key] = value.value
        return Device(
            name.value.decode(),
            (found["major"], found["minor"]),
            size.value,
            bool(found["integrated"]),
            f"{version.value // 1000}.{version.value % 1000 // 10}",
        )


@lru_cache(maxsize=1)
def driver() -> Driver:
    """The driver of this machine.

    Raises:
        BackendUnavailableError: there is none, or no GPU.
    """
    try:
        return Driver()
    except OSError as error:
        raise BackendUnavailableError(f"there is no NVIDIA driver ({LIBRARY}: {error})") from error
    except InferenceError as error:
        raise BackendUnavailableError(f"there is no usable NVIDIA GPU ({error})") from error


@lru_cache(maxsize=1)
def probe() -> Device | str:
    """The first GPU, or the reason why there is none."""
    try:
        return driver().device()
    except InferenceError as error:
        return str(error)


class Context:
    """The primary context of a GPU, current in this thread while in use, and a stream in it."""

    def __init__(self, index: int = 0) -> None:
        self.driver = driver()
        self._device = c_int()
        self.driver.call("cuDeviceGet", byref(self._device), c_int(index))
        self._context = c_void_p()
        self.driver.call("cuDevicePrimaryCtxRetain", byref(self._context), self._device)
        self._open = True
        self.use()
        self.device = self.driver.device(index)
        self._stream = c_void_p()
        self.driver.call("cuStreamCreate", byref(self._stream), c_uint(_STREAM_NON_BLOCKING))
        self._threads = {threading.get_ident()}

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._stream.value or 0)

    def use(self) -> None:
        """Make it current in the calling thread."""
        self.driver.call("cuCtxSetCurrent", self._context)

    def synchronize(self) -> None:
        """Wait until all that was put on the stream is done."""
        self.driver.call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Release stream and context; may be repeated."""
        if self._open:
            self._open = False
            self.use()
            self.driver.call("cuStreamDestroy_v2", self._stream)
            self.driver.call("cuDevicePrimaryCtxRelease_v2", self._device)


class Buffer:
    """Pinned memory of the machine with its counterpart on the GPU; the same memory where both share it (Jetson)."""

    def __init__(self, context: Context, size: int) -> None:
        self._context, self.size = context, max(size, 1)
        call = context.driver.call
        self._host, self._device = c_void_p(), c_uint64()
        self._shared = context.device.integrated
        flags = _HOST_ALLOC_DEVICEMAP if self._shared else 0
        call("cuMemHostAlloc", byref(self._host), c_size_t(self.size), c_uint(flags))
        try:
            if self._shared:
                call("cuMemHostGetDevicePointer_v2", byref(self._device), self._host, c_uint(0))
            else:
                call("cuMemAlloc_v2", byref(self._device), c_size_t(self.size))
        except InferenceError:
            call("cuMemFreeHost", self._host)
            raise

    @property
    def address(self) -> int:
        """Address on the GPU."""
        return int(self._device.value)

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The pinned memory as an array; it is overwritten by the next run."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        assert size <= self.size and self._host.value is not None
        memory = (ctypes.c_byte * size).from_address(self._host.value)
        return np.frombuffer(memoryview(memory), dtype).reshape(tuple(shape))

    def to_device(self, size: int) -> None:
        """Copy ``size`` bytes to the GPU, in the order of the stream."""
        if size and not self._shared:
            self._context.driver.call(
                "cuMemcpyHtoDAsync_v2", self._device, self._host, c_size_t(size), c_void_p(self._context.stream)
            )

    def to_host(self, size: int) -> None:
        """Copy ``size`` bytes from the GPU, in the order of the stream."""
        if size and not self._shared:
            self._context.driver.call(
                "cuMemcpyDtoHAsync_v2", self._host, self._device, c_size_t(size), c_void_p(self._context.stream)
            )

    def free(self) -> None:
        """Free both."""
        call = self._context.driver.call
        if not self._shared:
            call("cuMemFree_v2", self._device)
        call("cuMemFreeHost", self._host)


class Graph:
    """The work put on a stream between ``begin`` and ``end``, launched again as one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._graph, self._executable = c_void_p(), c_void_p()

    def begin(self) -> None:
        """Capture the stream's work from here on, without doing it."""
        self._context.driver.call(
            "cuStreamBeginCapture_v2", c_void_p(self._context.stream), c_int(_CAPTURE_THREAD_LOCAL)
        )

    def end(self, keep: bool = True) -> None:
        """End the capture; ``keep``: make the graph launchable."""
        call = self._context.driver.call
        call("cuStreamEndCapture", c_void_p(self._context.stream), byref(self._graph))
        if keep:
            call("cuGraphInstantiateWithFlags", byref(self._executable), self._graph, c_uint64(0))

    def launch(self) -> None:
        """Do all of it, in the order of the stream."""
        self._context.driver.call("cuGraphLaunch", self._executable, c_void_p(self._context.stream))

    def free(self) -> None:
        """Free the graph."""
        if self._executable.value:
            self._context.driver.call("cuGraphExecDestroy", self._executable)
        if self._graph.value:
            self._context.driver.call("cuGraphDestroy", self._graph)

"""The CUDA driver through ctypes, as far as engines need it: the first GPU's properties, memory, copies, a stream."""

from __future__ import annotations

import ctypes
import math
import weakref
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np

from edgekd.errors import BackendError
from edgekd.runtime.backends import Array
from edgekd.runtime.gpu import Gpu

LIBRARY = "libcuda.so.1"

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}
# A blocking stream would wait for other work of this process on the default stream.
_NON_BLOCKING = 1
_COMPUTE_CAPABILITY = (75, 76)
_NAME_BYTES = 256


class Library:
    """The driver's shared library, initialised; the return code of every call is checked.

    Args:
        name: the shared library, by name or path; None: the system's.

    Raises:
        BackendError: no driver, or it finds no usable GPU.
    """

    def __init__(self, name: str | None = None) -> None:
        try:
            self._functions = ctypes.CDLL(name or LIBRARY)
            for function, types in _SIGNATURES.items():
                getattr(self._functions, function).argtypes = types
        except (OSError, AttributeError) as error:
            raise BackendError(
                f"NVIDIA's CUDA driver cannot be loaded: {error}",
                hint="install NVIDIA's driver; in a container, start it with --runtime nvidia or --gpus all",
            ) from None
        self.call("cuInit", 0)

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver. Raises BackendError with CUDA's message if it does not return 0."""
        code: int = getattr(self._functions, function)(*arguments)
        if code == 0:
            return
        text = c_char_p()
        self._functions.cuGetErrorString(code, ctypes.byref(text))
        reason = text.value.decode() if text.value else "unknown error"
        raise BackendError(
            f"CUDA's {function} failed: {reason} (error {code})",
            hint="`nvidia-smi`, on a Jetson `tegrastats`, shows whether the GPU is there and has memory left",
        )


def unavailable_reason(name: str | None = None) -> str | None:
    """Why CUDA cannot be used here, in one sentence; None if there is a GPU."""
    count = c_int()
    try:
        Library(name).call("cuDeviceGetCount", ctypes.byref(count))
    except BackendError as error:
        return f"{error.what}; {error.hint}"
    return None if count.value else "CUDA finds no GPU; check CUDA_VISIBLE_DEVICES"


def device(name: str | None = None) -> Gpu:
    """The properties of the first GPU.

    Raises:
        BackendError: no driver or no GPU.
    """
    library = Library(name)
    handle, version = c_int(), c_int()
    text = ctypes.create_string_buffer(_NAME_BYTES)
    library.call("cuDeviceGet", ctypes.byref(handle), 0)
    library.call("cuDeviceGetName", text, _NAME_BYTES, handle)
    library.call("cuDriverGetVersion", ctypes.byref(version))
    major, minor = (_attribute(library, handle, number) for number in _COMPUTE_CAPABILITY)
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(text.value.decode(errors="replace"), (major, minor), driver)


def _attribute(library: Library, handle: c_int, number: int) -> int:
    value = c_int()
    library.call("cuDeviceGetAttribute", ctypes.byref(value), number, handle)
    return value.value


class Driver:
    """The first GPU's primary context, which CUDA's runtime and TensorRT use too.

    It is never released: TensorRT's objects may outlive it, and the driver cleans up when the process ends.

    Raises:
        BackendError: no driver or no GPU.
    """

    def __init__(self, name: str | None = None) -> None:
        self._library = Library(name)
        device, self._context = c_int(), c_void_p()
        self._library.call("cuDeviceGet", ctypes.byref(device), 0)
        self._library.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.activate()

    def activate(self) -> None:
        """Make the context current in the calling thread; each thread that calls CUDA needs this once."""
        self._library.call("cuCtxSetCurrent", self._context)

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver. Raises BackendError with CUDA's message if it does not return 0."""
        self._library.call(function, *arguments)

    def free_with(self, owner: object, function: str, handle: int) -> None:
        """Free `handle` with `function` when `owner` is garbage-collected."""
        finalizer = weakref.finalize(owner, self._free, function, handle)
        # The driver frees everything when the process ends; TensorRT may use it until then.
        finalizer.atexit = False

    def _free(self, function: str, handle: int) -> None:
        self.activate()  # the garbage collector runs in any thread
        self.call(function, handle)


class Buffer:
    """One tensor in page-locked host memory, as `array`, and in GPU memory, at `address`.

    `array` must not be used after the buffer is garbage-collected.

    Raises:
        BackendError: out of memory.
    """

    def __init__(self, driver: Driver, shape: tuple[int, ...], dtype: str) -> None:
        kind = np.dtype(dtype)
        self.size_bytes = math.prod(shape) * kind.itemsize
        host, device = c_void_p(), c_uint64()
        driver.call("cuMemHostAlloc", ctypes.byref(host), self.size_bytes, 0)
        self._host = host.value or 0
        driver.free_with(self, "cuMemFreeHost", self._host)
        driver.call("cuMemAlloc_v2", ctypes.byref(device), self.size_bytes)
        self.address = device.value
        driver.free_with(self, "cuMemFree_v2", self.address)
        memory = (ctypes.c_byte * self.size_bytes).from_address(self._host)
        self.array: Array = np.ctypeslib.as_array(memory).view(kind).reshape(shape)
        self._driver = driver

    def upload(self, stream: Stream) -> None:
        """Start the copy from the host to the GPU."""
        self._driver.call("cuMemcpyHtoDAsync_v2", self.address, self._host, self.size_bytes, stream.handle)

    def download(self, stream: Stream) -> None:
        """Start the copy from the GPU to the host."""
        self._driver.call("cuMemcpyDtoHAsync_v2", self._host, self.address, self.size_bytes, stream.handle)


class Stream:
    """A CUDA stream other than the default one; `handle` identifies it to CUDA and TensorRT."""

    def __init__(self, driver: Driver) -> None:
        stream = c_void_p()
        driver.call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        self.handle = stream.value or 0
        driver.free_with(self, "cuStreamDestroy_v2", self.handle)
        self._driver = driver

    def synchronize(self) -> None:
        """Wait until all work on this stream is done."""
        self._driver.call("cuStreamSynchronize", self.handle)

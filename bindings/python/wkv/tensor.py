# SPDX-License-Identifier: Apache-2.0
"""States for other libraries, over DLPack."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Tuple

from . import native
from ._base import Floats, floats
from .errors import NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from .model import Model

# DLPack's numbers: kinds of devices, flags of a tensor
CPU, CUDA = 1, 2
READ_ONLY, IS_COPY = 1, 2


class StateTensor:
    """A part of a state as it was when Cache.state_tensor was called: `torch.from_dlpack(cache.state_tensor(3))`.

    On the CPU it is a copy, and may be written to. On a GPU nothing is copied: the tensor is read-only and shares the
    state with the cache until that goes on, which takes memory for a state more. A consumer that knows no read-only
    tensors (DLPack before 1.0), or asks for a copy, gets one. Numbers are float32; on a GPU those of a model whose
    states are in half precision are float16. Shape and order are those of Cache.read_state; on a GPU the last two
    dimensions of "wkv" are transposed in memory, which strides say.

    torch takes a read-only tensor and lets you write to it all the same, into the cache and its forks: use
    `torch.from_dlpack(tensor, copy=True)` for one that you want to change.

    Before the last reference to a tensor on a GPU goes, work on it that is still in a stream must have ended: the memory
    is used again.
    """

    def __init__(self, model: Model, handle: Any, layer: int, part: int, shape: Tuple[int, ...]) -> None:
        self.shape = shape
        self._model, self._layer, self._part = model, layer, part
        name, _, index = model.info.device.partition(":")
        if name == "cpu":
            self._device = CPU, 0
            self._values = floats(*shape, is_filled=True)
            handle.read_state(layer, part, self._values)
            return
        if model._parks:
            raise UnsupportedError("a model with parking_limit_bytes may move its states: read_state gives copies")
        self._device = CUDA, int(index or 0)
        self._fork = handle.copy()
        try:
            self._capsule(self._fork, True, READ_ONLY)  # says what is wrong with an argument
        except NotFoundError:
            pass  # all zero, and not in memory yet

    def __dlpack_device__(self) -> Tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: Optional[Any] = None, max_version: Optional[Tuple[int, int]] = None,
                   dl_device: Optional[Tuple[int, int]] = None, copy: Optional[bool] = None) -> Any:
        """A capsule. There is nothing to wait for in any stream: a step returns when its work is done."""
        is_versioned = max_version is not None and max_version[0] >= 1
        wanted = self._device if dl_device is None else (int(dl_device[0]), int(dl_device[1]))
        if wanted not in (self._device, (CPU, 0)):
            raise BufferError(f"the state is on device {self._device}, and cannot be given out on {wanted}")
        if wanted[0] != CPU:
            return self._on_device(is_versioned, copy)
        if wanted != self._device and copy is False:
            raise BufferError("the state is on a GPU, and is not on the CPU without a copy")
        if self._device[0] == CPU and not copy:
            return native.host_capsule(self._values, self.shape, is_versioned, 0)
        return native.host_capsule(self._read(), self.shape, is_versioned, IS_COPY)

    def _read(self) -> Floats:
        """The values, in memory of their own."""
        values = floats(*self.shape, is_filled=True)
        if self._device[0] == CPU:
            memoryview(values).cast("B")[:] = memoryview(self._values).cast("B")
        else:
            self._fork.read_state(self._layer, self._part, values)
        return values

    def _on_device(self, is_versioned: bool, copy: Optional[bool]) -> Any:
        is_shared = is_versioned and not copy
        if not is_shared and copy is False:
            raise BufferError("the consumer knows no read-only tensors, and wants no copy")
        fork = self._fork.copy()  # the capsule's: nobody steps it
        with self._model._exporting:
            self._model._exported.add(fork)
            if is_shared:
                try:
                    return self._capsule(fork, is_versioned, READ_ONLY)
                except NotFoundError:
                    pass  # all zero, and not in memory yet
            fork.write_state(self._layer, self._part, self._read())  # into memory of its own
            return self._capsule(fork, is_versioned, IS_COPY)

    def _capsule(self, fork: Any, is_versioned: bool, flags: int) -> Any:
        return native.device_capsule(fork, fork, self._layer, self._part, is_versioned, flags)

    def __repr__(self) -> str:
        return f"<wkv.StateTensor {list(self.shape)} on {self._model.info.device}>"

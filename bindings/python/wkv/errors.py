# SPDX-License-Identifier: Apache-2.0
"""What the library's statuses are in Python: one exception, with subtypes that are also Python's own."""
from __future__ import annotations

from typing import Dict, Iterable, Optional, Tuple, Type


class Error(Exception):
    """A call failed. Objects are as before it, unless the class says otherwise.

    `code` is the number of the status (wkv/status.h), `name` its name such as "WKV_INVALID", `message` the text.
    `item_errors`: after Model.step, an error for each item that was at fault, by its index; the other items, fed again
    without these, can go on. The first one's message is the call's.
    """

    code = 0
    name = ""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.item_errors: Dict[int, Error] = {}

    def __str__(self) -> str:
        return self.message


class InvalidError(Error, ValueError):
    """An argument is wrong."""
    code, name = -1, "WKV_INVALID"


class ClosedError(InvalidError):
    """The object was closed before."""


class NotFoundError(Error, FileNotFoundError, LookupError):
    """No such file, device, kernel or entry."""
    code, name = -2, "WKV_NOT_FOUND"


class StorageError(Error, OSError):
    """The operating system refused to read or write."""
    code, name = -3, "WKV_IO"


class FormatError(Error, ValueError):
    """The bytes are damaged or not what they claim to be."""
    code, name = -4, "WKV_FORMAT"


class UnsupportedError(Error, NotImplementedError):
    """Understood, but this library cannot do it."""
    code, name = -5, "WKV_UNSUPPORTED"


class OutOfMemoryError(Error, MemoryError):
    """Memory is gone, or a memory limit was reached."""
    code, name = -6, "WKV_OUT_OF_MEMORY"


class BusyError(Error, RuntimeError):
    """The object is in use by another call."""
    code, name = -7, "WKV_BUSY"


class CancelledError(Error, RuntimeError):
    """A progress function asked to stop."""
    code, name = -8, "WKV_CANCELLED"


class MismatchError(Error, ValueError):
    """Valid, but of another model."""
    code, name = -9, "WKV_MISMATCH"


class DeviceError(Error, RuntimeError):
    """The device failed; what it held may be lost."""
    code, name = -10, "WKV_DEVICE"


class InternalError(Error, RuntimeError):
    """A fault of the library: please report it."""
    code, name = -11, "WKV_INTERNAL"


_CLASSES: Dict[int, Type[Error]] = {
    kind.code: kind
    for kind in (InvalidError, NotFoundError, StorageError, FormatError, UnsupportedError, OutOfMemoryError, BusyError,
                 CancelledError, MismatchError, DeviceError, InternalError)
}


def from_status(code: int, message: str, faults: Optional[Iterable[Tuple[int, int]]] = None) -> Error:
    """The exception for a status; called by the native module. faults: index and status of items of a batch."""
    kind = _CLASSES.get(code)
    if kind is not None:
        error = kind(message)
    else:
        error = Error(message)  # of a later library
        error.code = code
    for index, status in faults or ():
        text = f"item {index}: {_CLASSES[status].name if status in _CLASSES else status}" if error.item_errors else message
        error.item_errors[index] = from_status(status, text)
    return error

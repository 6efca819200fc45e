# SPDX-License-Identifier: Apache-2.0
"""What all classes share: handles that close, buffers, options."""
from __future__ import annotations

import array
import inspect
import sys
from typing import Any, Callable, List, Optional, Sequence, Tuple, Type, TypeVar, Union

from . import native
from ._header import DOCS
from .errors import ClosedError

numpy: Any
try:
    import numpy
except ImportError:
    numpy = None

Floats = Any
"""float32 numbers: a numpy array where numpy is installed, else a memoryview. As an argument: any buffer of them."""
Tokens = Union[int, Sequence[int], Any]
"""Token ids: a buffer of int32 (used where it lies), a sequence of int, or one int."""
Progress = Callable[[int, int], Any]
"""Called with done and total; a true result, or an exception, cancels."""

TYPES = {None: 0, "default": 0, "f32": 1, "f16": 2, "bf16": 3, "q8": 4, "q4": 5}
TYPE_NAMES = {1: "f32", 2: "f16", 3: "bf16", 4: "q8", 5: "q4"}

Self = TypeVar("Self", bound="Handle")
Class = TypeVar("Class")
Function = TypeVar("Function", bound=Callable[..., Any])


def type_number(name: Optional[str]) -> int:
    """The number of a number format: "f32", "f16", "bf16", "q8", "q4"."""
    try:
        return TYPES[name.lower() if name is not None else None]
    except (KeyError, AttributeError):
        raise ValueError(f"{name!r} is no number format: " + ", ".join(TYPE_NAMES.values())) from None


def described(c_name: str) -> Callable[[Function], Function]:
    """Put what the C header says of a function behind the docstring of its method."""

    def describe(function: Function) -> Function:
        text = DOCS.get(c_name, "")
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{text}\n\n({c_name} in C)".strip()
        return function

    return describe


class Handle:
    """Owns one object of the library. The handle goes when the last call that uses it has returned: closing while
    another thread is inside a call is fine."""

    _handle: Any = None

    def close(self) -> None:
        """Let go of the object; twice is fine. Calls that use it now finish first; later ones raise ClosedError."""
        self._handle = None

    @property
    def closed(self) -> bool:
        """Whether close was called."""
        return self._handle is None

    def _use(self) -> Any:
        handle = self._handle
        if handle is None:
            raise ClosedError(f"this {type(self).__name__} is closed")
        return handle

    def __enter__(self: Self) -> Self:
        self._use()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be pickled")


def wrap(kind: Type[Class], handle: Any, **parts: Any) -> Class:
    """An object of a class around a handle that exists already."""
    made = kind.__new__(kind)
    made._handle = handle  # type: ignore[attr-defined]
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def handle_of(thing: Any, kind: Type[Handle], name: str) -> Any:
    """The handle of an argument that may be None."""
    if thing is None:
        return None
    if not isinstance(thing, kind):
        raise TypeError(f"{name}: a {kind.__name__} is needed, not {type(thing).__name__}")
    return thing._use()


def floats(*shape: int, is_filled: bool = False) -> Floats:
    """Room for float32 numbers: zeros, or, when a call is certain to fill it, whatever is there."""
    if numpy is not None:
        return numpy.empty(shape, numpy.float32) if is_filled else numpy.zeros(shape, numpy.float32)
    count = 1
    for size in shape:
        count *= size
    memory = memoryview(bytearray(4 * count))
    return memory.cast("f", shape) if count else memory.cast("f")


def integers(count: int, code: str = "i") -> "array.array[int]":
    """Room for numbers of an array code."""
    return array.array(code, bytes(array.array(code).itemsize * count))


# which array code has 64 bits differs between platforms
UINT64 = "L" if array.array("L").itemsize == 8 else "Q"


def info(raw: Any, kind: Type[Class]) -> Class:
    """An info struct as a named tuple."""
    values: List[Any] = []
    for name in kind._fields:  # type: ignore[attr-defined]
        value = getattr(raw, name)
        values.append(bool(value) if name.startswith(("is_", "has_", "may_be_")) else value)
    return kind(*values)


def blob(write: Callable[[Any], int]) -> bytes:
    """What write(buffer) fills; write(None) gives the size. Another thread may make it larger in between."""
    from .errors import InvalidError
    size = write(None)
    while True:
        memory = bytearray(size)
        try:
            return bytes(memory[:write(memory)])
        except InvalidError:
            larger = write(None)
            if larger <= size:
                raise
            size = larger


def watcher(progress: Optional[Progress]) -> Any:
    """A native progress object; None watches for Ctrl-C alone."""
    if progress is not None and not callable(progress):
        raise TypeError("progress must be callable")
    return native.Progress(progress)


def readable(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def loading_bar(what: str) -> Tuple[Progress, Callable[[], None]]:
    """A progress function that shows a bar, and what ends it: tqdm's where it is installed, else a line on stderr."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        def line(done: int, total: int) -> None:
            share = 100 * done // max(total, 1)
            if share != shown[0]:
                shown[0] = share
                print(f"\r{what}: {share} %", end="", file=sys.stderr, flush=True)

        shown = [-1]
        return line, lambda: print(file=sys.stderr)
    bar = tqdm(desc=what, unit="B", unit_scale=True, unit_divisor=1000)

    def move(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return move, bar.close

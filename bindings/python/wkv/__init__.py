# SPDX-License-Identifier: Apache-2.0
"""RWKV-7 language models inside your program.

    import wkv

    model = wkv.Model("rwkv7-g1-0.4b.pth")
    cache = model.cache()                         # the state of one sequence, a few megabytes for any length
    for piece in model.generate("Once upon a time", cache=cache, max_tokens=100, temperature=0.8):
        print(piece, end="", flush=True)

    fork = cache.copy()                           # shares memory until one of the two steps
    logits = cache.step(model.tokenizer.encode(" The end."))

Failures raise `wkv.Error`, which has the library's code and text, and is a ValueError, FileNotFoundError, MemoryError
and so on as well. Every object can be closed, or used in a `with` block, or left to the garbage collector.
"""
from ._header import (BlobInfo, CacheInfo, DeviceInfo, InitialStateInfo, MemoryInfo, MemoryPlan, ModelInfo,
                      PrefixStoreInfo, TokenizerInfo)
from .cache import Cache, InitialState, read_header
from .errors import (BusyError, CancelledError, ClosedError, DeviceError, Error, FormatError, InternalError,
                     InvalidError, MismatchError, NotFoundError, OutOfMemoryError, StorageError, UnsupportedError)
from .generation import Generation, Piece
from .library import abi_version, convert, devices, plan_memory, version
from .model import Model
from .prefix_store import PrefixStore
from .sampler import Sampler
from .session import Session
from .tensor import StateTensor
from .tokenizer import Decoder, Tokenizer

__version__ = version()

__all__ = [
    "BlobInfo", "BusyError", "Cache", "CacheInfo", "CancelledError", "ClosedError", "Decoder", "DeviceError",
    "DeviceInfo", "Error", "FormatError", "Generation", "InitialState", "InitialStateInfo", "InternalError",
    "InvalidError", "MemoryInfo", "MemoryPlan", "MismatchError", "Model", "ModelInfo", "NotFoundError",
    "OutOfMemoryError", "Piece", "PrefixStore", "PrefixStoreInfo", "Sampler", "Session", "StateTensor", "StorageError",
    "Tokenizer", "TokenizerInfo", "UnsupportedError", "abi_version", "convert", "devices", "plan_memory", "read_header",
    "version",
]

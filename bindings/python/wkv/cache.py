# SPDX-License-Identifier: Apache-2.0
"""A cache: the recurrent state of one sequence."""
from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from . import native
from ._base import (UINT64, Floats, Handle, Progress, Tokens, blob, described, floats, handle_of, info, integers,
                    readable, type_number, watcher, wrap)
from ._header import BlobInfo, CacheInfo, InitialStateInfo
from .errors import BusyError, Error
from .library import Path
from .model import Model, find_model
from .tensor import StateTensor

PARTS: Dict[Union[str, int], int] = {"att_shift": 0, "ffn_shift": 1, "wkv": 2, 0: 0, 1: 1, 2: 2}
LAYOUTS: Dict[Union[str, int], int] = {"official": 0, "fla": 1, "rwkv.cpp": 2, "llama.cpp": 3, 0: 0, 1: 1, 2: 2, 3: 3}


def _choose(table: Dict[Union[str, int], int], key: Union[str, int], what: str) -> int:
    try:
        return table[key]
    except (KeyError, TypeError):
        names = ", ".join(repr(name) for name in table if isinstance(name, str))
        raise ValueError(f"{key!r} is no {what}: {names}") from None


class InitialState(Handle):
    """A tuned initial state: where caches of a model start in place of zeros."""

    @described("wkv_initial_state_load")
    def __init__(self, model: Model, path: Path, *, value_first: bool = False) -> None:
        options = native.InitialStateOptions()
        options.order = int(value_first)
        self._handle = native.InitialState.load(handle_of(model, Model, "model"), path, options)

    @property
    @described("wkv_initial_state_get_info")
    def info(self) -> InitialStateInfo:
        raw = native.InitialStateInfo()
        self._use().get_info(raw)
        return info(raw, InitialStateInfo)

    def __repr__(self) -> str:
        return f"<wkv.InitialState {'closed' if self.closed else readable(self.info.bytes)}>"


class Cache(Handle):
    """Everything a model remembers of one sequence, in the same few megabytes whatever its length.

    Used by one call at a time: a second one meanwhile raises BusyError and changes nothing. A call that fails leaves the
    cache as it was. Pickling keeps the state and needs the model again: see Model.unpickling.
    """

    model: Model

    @described("wkv_cache_create")
    def __init__(self, model: Model, *, initial_state: Optional[InitialState] = None, checkpoint_every_tokens: int = 0,
                 checkpoints_count_max: int = 0, checkpoints_bytes_max: int = 0) -> None:
        """A cache that has read nothing."""
        options = native.CacheOptions()
        options.checkpoint_every_tokens = checkpoint_every_tokens
        options.checkpoints_count_max = checkpoints_count_max
        options.checkpoints_bytes_max = checkpoints_bytes_max
        state = handle_of(initial_state, InitialState, "initial_state")  # kept until the call has returned
        options.set_initial_state(state)
        handle = handle_of(model, Model, "model")
        self._handle = native.Cache.create(handle, options)
        self._prepare(model, handle)

    @classmethod
    def _around(cls, handle: Any, model: Model, model_handle: Any) -> Cache:
        made = wrap(cls, handle)
        made._prepare(model, model_handle)
        return made

    def _prepare(self, model: Model, model_handle: Any) -> None:
        self.model = model
        self._model_handle = model_handle  # steps go on when the model is closed
        self._width = model.info.vocab_size

    def close(self) -> None:
        super().close()
        self._model_handle = None

    close.__doc__ = Handle.close.__doc__

    # --- reading on

    @described("wkv_cache_step")
    def step(self, tokens: Tokens, out: Optional[Floats] = None, *, logits: bool = True, all_logits: bool = False,
             keep_states: bool = False, progress: Optional[Progress] = None) -> Any:
        """Feed tokens and get the scores of what comes next: float32 [vocab_size].

        out: a float32 buffer to write to, instead of a new one. logits=False: no scores, which saves their time.
        all_logits: the scores after every token, [tokens, vocab_size]. keep_states: rollback can go to each of these (at
        most 32) tokens until the next step. progress(done, total): a true result cancels.
        """
        model, handle = self._model_handle, self._handle  # in this order: close gives the handle up first
        if handle is None:
            handle = self._use()
        if not (all_logits or keep_states or progress):
            if out is None and logits:
                out = floats(self._width, is_filled=True)
            handle.step(tokens, out if logits else None)
            return out if logits else None
        if isinstance(tokens, int):
            tokens = (tokens,)
        if not logits:
            out = None
        elif out is None:
            out = floats(len(tokens), self._width) if all_logits else floats(self._width)
        flags = (native.STEP_ALL_LOGITS if all_logits else 0) | (native.STEP_ALL_STATES if keep_states else 0)
        items = [(handle, tokens, out, None, flags)]
        if progress is None:
            model.step(items)
        else:
            options, watching = native.StepOptions(), watcher(progress)
            options.set_progress(watching)
            model.step_watched(items, options)
        return out

    @described("wkv_cache_reset")
    def reset(self) -> None:
        self._use().reset()

    # --- forks

    @described("wkv_cache_copy")
    def copy(self) -> Cache:
        model_handle, handle = self._model_handle, self._use()
        return Cache._around(handle.copy(), self.model, model_handle)

    def __copy__(self) -> Cache:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Cache:
        return self.copy()

    @described("wkv_cache_assign")
    def assign(self, source: Cache) -> None:
        self._use().assign(handle_of(source, Cache, "source"))

    @staticmethod
    @described("wkv_cache_select")
    def select(caches: Sequence[Cache], indices: Sequence[int]) -> List[Cache]:
        """Copies of caches, chosen by index."""
        caches = list(caches)
        models = [cache._model_handle for cache in caches]
        handles = [handle_of(cache, Cache, "cache") for cache in caches]
        return [Cache._around(made, caches[0].model, models[0])
                for made in native.Cache.select(handles, indices)]

    @staticmethod
    @described("wkv_cache_reorder")
    def reorder(caches: Sequence[Cache], sources: Sequence[int]) -> None:
        """caches[i] becomes what caches[sources[i]] was: the step of a beam search."""
        native.Cache.reorder(([handle_of(cache, Cache, "cache") for cache in caches], sources))

    @described("wkv_cache_park")
    def park(self) -> None:
        with self.model._exporting:
            if self.model._exported:
                raise BusyError("another library uses state tensors of this model, and parking would move them")
            self._use().park()

    # --- going back

    @described("wkv_cache_mark")
    def mark(self) -> int:
        return int(self._use().mark())

    @described("wkv_cache_unmark")
    def unmark(self, position: int) -> None:
        self._use().unmark(position)

    @described("wkv_cache_rollback")
    def rollback(self, position: int) -> None:
        self._use().rollback(position)

    @property
    @described("wkv_cache_get_kept_positions")
    def kept_positions(self) -> List[int]:
        handle = self._use()
        room = integers(self.info.kept_count, UINT64)
        return list(room[:handle.get_kept_positions(room)])

    # --- what it is

    @property
    @described("wkv_cache_get_info")
    def info(self) -> CacheInfo:
        raw = native.CacheInfo()
        self._use().get_info(raw)
        made = info(raw, CacheInfo)
        return made._replace(last_tokens=made.last_tokens[:made.last_tokens_count])

    @property
    def position(self) -> int:
        """Tokens read so far."""
        raw = native.CacheInfo()
        self._use().get_info(raw)
        return int(raw.position)

    @property
    def last_tokens(self) -> Tuple[int, ...]:
        """The tokens read last, at most 16."""
        return self.info.last_tokens

    @property
    def nbytes(self) -> int:
        """Memory of the state."""
        return self.info.bytes

    def _shape(self, part: int) -> Tuple[int, ...]:
        i = self.model.info
        return (i.heads, i.head_size, i.head_size) if part == PARTS["wkv"] else (i.width,)

    @described("wkv_cache_read_state")
    def read_state(self, layer: int, part: Union[str, int] = "wkv", out: Optional[Floats] = None) -> Floats:
        """A part of a layer's state: "att_shift" and "ffn_shift" [width], "wkv" [heads, head_size value, head_size key]."""
        number = _choose(PARTS, part, "part")
        if out is None:
            out = floats(*self._shape(number), is_filled=True)
        self._use().read_state(layer, number, out)
        return out

    def state_tensor(self, layer: int, part: Union[str, int] = "wkv") -> StateTensor:
        """A part of a layer's state, as it is now, for numpy.from_dlpack, torch.from_dlpack and their kin.

        Shapes as of read_state. The values stay what they are when the cache goes on or is closed.
        """
        number = _choose(PARTS, part, "part")
        return StateTensor(self.model, self._use(), layer, number, self._shape(number))

    @described("wkv_cache_write_state")
    def write_state(self, layer: int, part: Union[str, int], values: Floats) -> None:
        self._use().write_state(layer, _choose(PARTS, part, "part"), values)

    @described("wkv_cache_check")
    def check(self) -> Optional[Tuple[int, str]]:
        """The first layer and part with a number that is not finite; None: all are."""
        layer, part = self._use().check()
        return None if layer < 0 else (layer, ("att_shift", "ffn_shift", "wkv")[part])

    @described("wkv_cache_export")
    def export_state(self, layout: Union[str, int] = "official", out: Optional[Floats] = None) -> Floats:
        """The whole state in the layout of another engine: "official", "fla", "rwkv.cpp", "llama.cpp"."""
        number = _choose(LAYOUTS, layout, "layout")
        i = self.model.info
        if out is None:
            out = floats(i.layers * (2 * i.width + i.width * i.head_size), is_filled=True)
        self._use().export_state(number, out)
        return out

    @described("wkv_cache_import")
    def import_state(self, values: Floats, position: int, layout: Union[str, int] = "official") -> None:
        self._use().import_state(_choose(LAYOUTS, layout, "layout"), values, position)

    # --- bytes

    @described("wkv_cache_save_as")
    def save(self, path: Path, *, state_type: Optional[str] = None) -> None:
        """Write the state to a file, whole or not at all. state_type "f16": half the size."""
        self._use().save_as(path, _save_options(state_type))

    @classmethod
    def load(cls, model: Model, path: Path) -> Cache:
        """The same as model.load_cache(path)."""
        return model.load_cache(path)

    @described("wkv_cache_serialize_as")
    def to_bytes(self, *, state_type: Optional[str] = None) -> bytes:
        """What save writes; model.cache_from_bytes reads it."""
        handle, options = self._use(), _save_options(state_type)
        return blob(lambda memory: handle.serialize_as(options, memory))

    def __reduce__(self) -> Any:
        return _unpickle, (self.model.info.fingerprint, self.to_bytes())

    # --- for people

    def __repr__(self) -> str:
        if self.closed:
            return "<wkv.Cache closed>"
        try:
            i = self.info
        except Error as error:  # in use by another thread
            return f"<wkv.Cache: {error}>"
        kept = f", {i.kept_count} kept positions" if i.kept_count else ""
        shared = ", shared" if i.is_shared else ""
        return f"<wkv.Cache at {i.position}: {readable(i.bytes)} on {i.device}{shared}{kept}>"

    def _repr_html_(self) -> str:
        from .picture import html
        return html(self)


def _save_options(state_type: Optional[str]) -> Any:
    options = native.SaveOptions()
    options.state_type = type_number(state_type)
    return options


def _unpickle(fingerprint: int, data: bytes) -> Cache:
    return find_model(fingerprint).cache_from_bytes(data)


@described("wkv_cache_read_header")
def read_header(source: Any) -> BlobInfo:
    """What a saved cache or session says of itself: a path, or bytes of the blob."""
    raw = native.BlobInfo()
    if isinstance(source, (str, os.PathLike)):
        native.Cache.read_header(source, raw)
    else:
        native.Cache.read_header_memory(source, raw)
    made = info(raw, BlobInfo)
    return made._replace(last_tokens=made.last_tokens[:made.last_tokens_count])

# SPDX-License-Identifier: Apache-2.0
"""The cache of a batch: one wkv.Cache a row, and the tokens that it has read.

A recurrent state does not say what it was made from. Therefore the ids are kept beside it, four bytes each: a second turn
with another beginning is an error, not another text.
"""
from __future__ import annotations

import array
import contextlib
import io
import json
import os
import sys
import threading
import zipfile
from collections.abc import Mapping
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy
import torch
from transformers.cache_utils import Cache as TransformersCache

import wkv

from .. import native
from ..library import Path
from ..model import find_model

STATES = ("recurrent_state", "attn_state", "conv_state", "ffn_state")
FILE_FORMAT = 1


class Row:
    """A sequence: its wkv.Cache, the tokens read from position `start` on, and what generate() said last and the cache has
    not read."""

    def __init__(self, cache: wkv.Cache, start: int, tokens: Sequence[int], unread: Sequence[int] = ()) -> None:
        self.cache, self.start, self.unread = cache, start, tuple(unread)
        self.tokens = array.array("i", tokens)

    @property
    def position(self) -> int:
        return self.start + len(self.tokens)

    def around(self, cache: wkv.Cache) -> Row:
        """The same reading around a copy of the state."""
        return Row(cache, self.start, self.tokens, self.unread)


class RWKV7CacheLayer(Mapping):  # type: ignore[type-arg]
    """One layer's state of all rows, in the names and shapes of flash-linear-attention: "recurrent_state" float32 [batch,
    heads, head_size key, head_size value], "conv_state" and "ffn_state" [batch, width]; "attn_state" is None. Tensors
    are copies of the moment they are asked for."""

    def __init__(self, cache: RWKV7Cache, index: int) -> None:
        self._cache, self._index = cache, index

    def __getitem__(self, name: str) -> Optional[torch.Tensor]:
        if name not in STATES:
            raise KeyError(name)
        if name == "attn_state":
            return None
        part = {"recurrent_state": "wkv", "conv_state": "att_shift", "ffn_state": "ffn_shift"}[name]
        rows = [torch.from_numpy(cache.read_state(self._index, part)) for cache in self._cache.caches]
        state = torch.stack(rows)
        return state.transpose(2, 3).contiguous() if part == "wkv" else state

    def __iter__(self) -> Iterator[str]:
        return iter(STATES)

    def __len__(self) -> int:
        return len(STATES)

    def __repr__(self) -> str:
        return f"<layer {self._index} of {self._cache!r}>"


class RWKV7Cache(TransformersCache):  # type: ignore[misc]
    """What generate() goes on from: `past_key_values=` (`cache=` in later versions of transformers).

    RWKV7Cache() fits any model and batch at its first use. Options are those of wkv.Model.cache. It is changed in place,
    whatever generate() returns. One thread at a time; a second one meanwhile gets wkv.BusyError. copy.deepcopy and clone()
    cost nothing until one side steps. Pickles keep the state and find their model as those of wkv.Cache do.

    get_seq_length() counts columns of the batch, padding included, as transformers does; padding is never read.
    """

    is_compileable = False
    # transformers asks this before it relies on crop() for any number of tokens: here it reaches kept positions only
    is_croppable = False
    is_sliding: List[bool] = []

    def __init__(self, model: Any = None, *, initial_state: Optional[wkv.InitialState] = None,
                 checkpoint_every_tokens: int = 0, checkpoints_count_max: int = 0, checkpoints_bytes_max: int = 0) -> None:
        self._options: Dict[str, Any] = {
            "initial_state": initial_state, "checkpoint_every_tokens": checkpoint_every_tokens,
            "checkpoints_count_max": checkpoints_count_max, "checkpoints_bytes_max": checkpoints_bytes_max}
        self._rows: List[Row] = []
        self._columns = 0
        self._gap = 0  # up to this column some row may have skipped padding
        self._is_adopted = False  # caches came from outside: they are not replaced by new ones
        self._lock = threading.RLock()
        self._turn: Any = None
        self._model: Optional[wkv.Model] = None if model is None else wkv_model(model)

    # --- rows

    @classmethod
    def from_caches(cls, caches: Sequence[wkv.Cache], tokens: Optional[Sequence[Sequence[int]]] = None) -> RWKV7Cache:
        """Around wkv.Cache objects, one a row, which are used and not copied. tokens: what each row has read from its
        beginning; without it only the last tokens that a cache knows itself are compared with the next history."""
        caches = list(caches)
        if not caches or any(not isinstance(cache, wkv.Cache) for cache in caches):
            raise TypeError("a list of wkv.Cache is needed")
        if any(cache.model is not caches[0].model for cache in caches):
            raise ValueError("the caches belong to different models")
        if len({id(cache) for cache in caches}) != len(caches):
            raise ValueError("a cache cannot be two rows")
        if tokens is not None and len(tokens) != len(caches):
            raise ValueError(f"tokens of {len(tokens)} rows for {len(caches)} caches")
        made = cls(caches[0].model)
        made._rows = [_row(cache, None if tokens is None else tokens[i]) for i, cache in enumerate(caches)]
        made._columns = made._gap = max(row.position for row in made._rows)
        made._is_adopted = True
        return made

    @property
    def caches(self) -> List[wkv.Cache]:
        """The wkv.Cache of each row. Looking is fine; one that is stepped elsewhere is refused here afterwards."""
        return [row.cache for row in self._rows]

    @property
    def tokens(self) -> List[List[int]]:
        """What each row has read, as far as it is known: from the beginning, unless a state came from elsewhere."""
        return [row.tokens.tolist() for row in self._rows]

    @property
    def model(self) -> Optional[wkv.Model]:
        """The wkv.Model it belongs to; None before the first use."""
        return self._model

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise wkv.BusyError("this cache is in use by another thread")
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _taking_turn(self, turn: Any) -> Iterator[None]:
        with self._alone():
            if self._turn is not None:
                raise wkv.BusyError("generate() is using this cache")
            self._turn = turn
            try:
                yield
            finally:
                self._turn = None

    def _rows_for(self, model: wkv.Model, count: int) -> List[Row]:
        """Rows for a batch, new ones if nothing was read yet."""
        if self._model is not None and self._model is not model and self._model.info.fingerprint != model.info.fingerprint:
            raise wkv.MismatchError("this cache belongs to another model")
        if len(self._rows) != count:
            if self._columns or self._is_adopted:
                raise ValueError(f"the cache holds {len(self._rows)} sequences, the input has {count}")
            return [_row(model.cache(**self._options)) for _ in range(count)]
        for i, row in enumerate(self._rows):
            if row.cache.position != row.position:
                raise ValueError(f"the wkv.Cache of row {i} was changed by others: RWKV7Cache.from_caches takes it as it is")
        return self._rows

    def _feed(self, model: wkv.Model, fed: Sequence[numpy.ndarray], outs: Sequence[Any], columns: int,
              all_logits: bool) -> None:
        """One step of every row that has tokens; the length is `columns` afterwards."""
        with self._alone():
            rows = self._rows_for(model, len(fed))
            flags = native.STEP_ALL_LOGITS if all_logits else 0
            items = [(row.cache._use(), tokens, out, None, flags)
                     for row, tokens, out in zip(rows, fed, outs) if len(tokens)]
            if not items:
                self._rows, self._columns, self._gap, self._model = rows, columns, columns, rows[0].cache.model
                return
            reading = next(row for row, tokens in zip(rows, fed) if len(tokens))
            try:
                rows[0].cache._model_handle.step(items)
            finally:
                # Ctrl-C during a step is raised when the step has ended: what counts is whether the states went on
                if reading.cache.position != reading.position:
                    if any(len(tokens) != columns - self._columns for tokens in fed):
                        self._gap = columns
                    self._rows, self._columns, self._model = rows, columns, rows[0].cache.model
                    for row, tokens in zip(rows, fed):
                        row.tokens.frombytes(tokens.tobytes())
                        row.unread = ()

    # --- forks

    def clone(self) -> RWKV7Cache:
        """An independent cache with the same content."""
        made = RWKV7Cache(self._model, **self._options)
        with self._alone():
            made._rows = [row.around(row.cache.copy()) for row in self._rows]
            made._columns, made._gap, made._is_adopted = self._columns, self._gap, self._is_adopted
        return made

    def __copy__(self) -> RWKV7Cache:
        return self.clone()

    def __deepcopy__(self, memo: Any) -> RWKV7Cache:
        return self.clone()

    def _select(self, indices: Sequence[int]) -> None:
        with self._alone():
            count = len(self._rows)
            if any(not 0 <= i < count for i in indices):
                raise IndexError(f"the cache holds {count} sequences: {list(indices)}")
            if len(indices) == count:
                wkv.Cache.reorder(self.caches, indices)
                caches = self.caches
            else:
                caches = wkv.Cache.select(self.caches, indices) if indices else []
            self._rows = [self._rows[i].around(cache) for i, cache in zip(indices, caches)]

    def reorder_cache(self, beam_idx: Any) -> None:
        """Row i becomes what row beam_idx[i] was; another number of rows is fine."""
        self._select(_indices(beam_idx))

    def batch_select_indices(self, indices: Any) -> None:
        """Keep these rows, in this order."""
        self._select(_indices(indices))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times."""
        if repeats < 1:
            raise ValueError(f"repeats is {repeats}")
        self._select([i for i in range(len(self._rows)) for _ in range(repeats)])

    # --- length, and going back

    def get_seq_length(self, layer_idx: Optional[int] = 0) -> int:
        """Columns so far; 0 for a layer that is not there."""
        return self._columns if layer_idx is None or layer_idx < max(len(self), 1) else 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """The same as get_seq_length."""
        return self.get_seq_length(layer_idx)

    def get_max_length(self, layer_idx: Optional[int] = None) -> int:
        """-1: there is none."""
        return -1

    def get_max_cache_shape(self, layer_idx: Optional[int] = None) -> int:
        """-1: there is none."""
        return -1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> Tuple[int, int]:
        """Columns with the query, and where they begin."""
        return self._columns + int(query_length), 0

    def has_previous_state(self, layer_idx: Optional[int] = None, state_idx: Optional[int] = None) -> bool:
        """Whether anything was read."""
        return self._columns > 0

    def reset(self) -> None:
        """As new."""
        with self._alone():
            for row in self._rows:
                row.cache.reset()
            self._rows = [_row(row.cache) for row in self._rows]
            self._columns = self._gap = 0

    def mark(self) -> int:
        """Keep the state as it is now for crop(); gives the length."""
        with self._alone():
            for row in self._rows:
                row.cache.mark()
            return self._columns

    @property
    def kept_lengths(self) -> List[int]:
        """Lengths that crop() can go back to: marks, and checkpoints that every row has."""
        kept: Optional[set[int]] = None
        for row in self._rows:
            lengths = {self._columns - row.position + position for position in row.cache.kept_positions}
            kept = lengths if kept is None else kept & lengths
        return sorted(length for length in kept or () if self._gap <= length <= self._columns)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last -tokens_to_remove columns, which is exact, and possible where a mark or checkpoint was kept: a
        recurrent state cannot be shortened."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}): the number of tokens to remove is negative")
        if tokens_to_remove == 0:
            return
        with self._alone():
            length = self._columns + tokens_to_remove
            kept = self.kept_lengths
            if length not in kept:
                raise ValueError(f"no state is kept at length {length}, only at {kept}: see mark() and "
                                 "checkpoint_every_tokens")
            for row in self._rows:
                position = row.position + tokens_to_remove
                row.cache.rollback(position)
                del row.tokens[max(position - row.start, 0):]
                row.start, row.unread = min(row.start, position), ()
            self._columns = length

    # --- layers

    @property
    def layers(self) -> List[RWKV7CacheLayer]:
        """Views of the layers; none before the first use."""
        return [RWKV7CacheLayer(self, i) for i in range(len(self))]

    def __len__(self) -> int:
        return self._model.info.layers if self._model is not None and self._rows else 0

    def __getitem__(self, index: int) -> RWKV7CacheLayer:
        if not -len(self) <= index < len(self):
            raise IndexError(f"the cache has {len(self)} layers, not a layer {index}")
        return RWKV7CacheLayer(self, index % len(self))

    def __iter__(self) -> Iterator[RWKV7CacheLayer]:
        return iter(self.layers)

    @property
    def is_linear(self) -> List[bool]:
        """All layers are."""
        return [True] * len(self)

    @property
    def is_initialized(self) -> bool:
        """Whether there are states."""
        return bool(self._rows)

    @property
    def batch_size(self) -> int:
        """Rows; -1 before the first use."""
        return len(self._rows) or -1

    def update(self, *_: Any, **__: Any) -> Any:
        """Refused: libwkv writes its states itself."""
        raise NotImplementedError("the state is written by libwkv; from_legacy_cache and from_fla take one from elsewhere")

    update_conv_state = update_recurrent_state = update

    def offload(self, *_: Any, **__: Any) -> None:
        """Move the states to the host's memory until they are used."""
        for cache in self.caches:
            cache.park()

    def prefetch(self, *_: Any, **__: Any) -> None:
        """Nothing: the next step brings the states back."""

    def memory_usage(self) -> int:
        """Bytes of the states: layers * (2 * width + width * head_size) floats a row."""
        return sum(cache.nbytes for cache in self.caches)

    # --- to and from others

    def to_legacy_cache(self) -> Tuple[Dict[str, Optional[torch.Tensor]], ...]:
        """A dictionary of tensors for each layer, as flash-linear-attention has it."""
        with self._alone():
            return tuple(dict(layer) for layer in self)

    @classmethod
    def from_legacy_cache(cls, past: Sequence[Mapping[str, Any]], seen_tokens: int = 0, *, model: Any = None,
                          tokens: Optional[Sequence[Sequence[int]]] = None) -> RWKV7Cache:
        """From a dictionary of tensors for each layer. tokens: what each row has read, so that a history can be compared;
        without it the next turn says what is new by its attention_mask."""
        if model is None:
            raise TypeError("from_legacy_cache needs model=, whose state this is")
        model = wkv_model(model)
        info, layers = model.info, list(past)
        if len(layers) != info.layers:
            raise ValueError(f"{len(layers)} layers, the model has {info.layers}")
        sizes = {"recurrent_state": info.width * info.head_size, "conv_state": info.width, "ffn_state": info.width}
        parts: List[torch.Tensor] = []
        batch = None
        for i, layer in enumerate(layers):
            if layer.get("attn_state") is not None:
                raise ValueError(f"layer {i} has an attention state, which RWKV-7 has not")
            for name, size in sizes.items():
                state = layer.get(name)
                if state is None:
                    raise ValueError(f"layer {i} has no {name}")
                batch = state.shape[0] if batch is None else batch
                if state.shape[0] != batch or state.numel() != batch * size:
                    raise ValueError(f"{name} of layer {i} has the shape {list(state.shape)}, not {size} floats a row")
                parts.append(state.detach().to("cpu", torch.float32).reshape(batch, size))
        values = torch.cat(parts, 1)
        if tokens is not None and len(tokens) != len(values):
            raise ValueError(f"tokens of {len(tokens)} rows for {len(values)} states")
        caches = []
        for i, row in enumerate(values):
            position = seen_tokens if tokens is None else len(tokens[i])
            if not position and row.any():  # the next turn would read again what this state has read
                raise ValueError(f"the state of row {i} is not empty: seen_tokens or tokens must say what it has read")
            cache = model.cache()
            cache.import_state(row.numpy(), position, "fla")
            caches.append(cache)
        made = cls.from_caches(caches, tokens)
        made._columns = made._gap = max(int(seen_tokens), made._columns)
        return made

    @classmethod
    def from_fla(cls, cache: Any, model: Any, tokens: Optional[Sequence[Sequence[int]]] = None) -> RWKV7Cache:
        """From the cache of flash-linear-attention's RWKV-7, whose matrix is [key, value] and becomes [value, key]."""
        layers = [cache[i] for i in range(len(cache))]
        return cls.from_legacy_cache(layers, cache.get_seq_length(), model=model, tokens=tokens)

    def to_fla(self, device: Any = None) -> Any:
        """The same states as a cache of flash-linear-attention, which must be installed."""
        from fla.models.utils import Cache as FlaCache
        made = FlaCache()
        for i, layer in enumerate(self.to_legacy_cache()):
            states = {name: state.to(device) for name, state in layer.items() if state is not None}
            made.update(**states, layer_idx=i, offset=self._columns)
        return made

    # --- bytes

    def _packed(self) -> Dict[str, Any]:
        with self._alone():
            rows = [(row.cache.to_bytes(), row.start, _little(row.tokens).tobytes(), list(row.unread)) for row in self._rows]
            return {"columns": self._columns, "gap": self._gap, "rows": rows}

    @classmethod
    def _unpacked(cls, model: wkv.Model, packed: Mapping[str, Any]) -> RWKV7Cache:
        made = cls(model)
        for data, start, raw, unread in packed["rows"]:
            tokens = array.array("i")
            tokens.frombytes(raw)
            cache = model.cache_from_bytes(data)
            if cache.position != start + len(tokens):
                raise wkv.FormatError(f"a state at position {cache.position} and tokens up to {start + len(tokens)}")
            made._rows.append(Row(cache, start, _little(tokens), unread))
        made._columns, made._gap = packed["columns"], packed["gap"]
        return made

    def __reduce__(self) -> Any:
        if not self._rows:
            return RWKV7Cache, ()
        assert self._model is not None
        return _unpickle, (self._model.info.fingerprint, self._packed())

    def save(self, path: Path) -> None:
        """Write everything to one file, whole or not at all: a ZIP archive of a .wkv file and the tokens for each row."""
        packed = self._packed()
        about = {"format": FILE_FORMAT, "columns": packed["columns"], "gap": packed["gap"],
                 "rows": [{"start": start, "unread": unread} for _, start, _, unread in packed["rows"]]}
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            archive.writestr("cache.json", json.dumps(about))
            for i, (data, _, tokens, _) in enumerate(packed["rows"]):
                archive.writestr(f"{i}.wkv", data)
                archive.writestr(f"{i}.tokens", tokens)
        path = os.fsdecode(path)
        beside = f"{path}.{os.getpid()}.part"
        try:
            with open(beside, "xb") as file:
                file.write(memory.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(beside)
            raise

    @classmethod
    def load(cls, path: Path, model: Any) -> RWKV7Cache:
        """From a file that save wrote, or of one row from one that wkv.Cache.save wrote in any language."""
        model = wkv_model(model)
        with open(path, "rb") as file:
            is_archive = file.read(2) == b"PK"
        if not is_archive:
            return cls.from_caches([model.load_cache(path)])
        try:
            with zipfile.ZipFile(os.fsdecode(path)) as archive:
                about = json.loads(archive.read("cache.json"))
                if about["format"] != FILE_FORMAT:
                    raise wkv.UnsupportedError(f"format {about['format']} of saved caches is not known")
                rows = [(archive.read(f"{i}.wkv"), int(row["start"]), archive.read(f"{i}.tokens"),
                         [int(token) for token in row["unread"]]) for i, row in enumerate(about["rows"])]
                packed = {"columns": int(about["columns"]), "gap": int(about["gap"]), "rows": rows}
                return cls._unpacked(model, packed)
        except wkv.Error:
            raise
        except (zipfile.BadZipFile, LookupError, TypeError, ValueError) as error:
            raise wkv.FormatError(f"not a saved cache: {error}") from error

    def close(self) -> None:
        """Let go of the states at once; the cache is as new."""
        with self._alone():
            for row in self._rows:
                row.cache.close()
            self._rows, self._columns, self._gap, self._is_adopted = [], 0, 0, False

    def __repr__(self) -> str:
        return f"<RWKV7Cache: {len(self._rows)} sequences of {self._columns}>"


def wkv_model(model: Any) -> wkv.Model:
    """The wkv.Model of an argument that may be an RWKV7ForCausalLM."""
    model = getattr(model, "wkv", model)
    if not isinstance(model, wkv.Model):
        raise TypeError(f"model: a wkv.Model or an RWKV7ForCausalLM is needed, not {type(model).__name__}")
    return model


def _row(cache: wkv.Cache, tokens: Optional[Sequence[int]] = None) -> Row:
    position = cache.position
    if tokens is None:
        tokens = cache.last_tokens
        return Row(cache, position - len(tokens), tokens)
    if len(tokens) != position:
        raise ValueError(f"the cache has read {position} tokens, not {len(tokens)}")
    known = cache.last_tokens
    if known and tuple(tokens[-len(known):]) != tuple(known):
        raise ValueError("the cache has read other tokens")
    return Row(cache, 0, tokens)


def _indices(indices: Any) -> List[int]:
    return [int(i) for i in (indices.tolist() if isinstance(indices, torch.Tensor) else indices)]


def _little(tokens: array.array[int]) -> array.array[int]:
    """Little-endian order: saved caches travel."""
    if sys.byteorder == "little":
        return tokens
    swapped = tokens[:]
    swapped.byteswap()
    return swapped


def _unpickle(fingerprint: int, packed: Dict[str, Any]) -> RWKV7Cache:
    return RWKV7Cache._unpacked(find_model(fingerprint), packed)

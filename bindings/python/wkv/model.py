# SPDX-License-Identifier: Apache-2.0
"""A model: the weights."""
from __future__ import annotations

import contextlib
import contextvars
import threading
import weakref
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Sequence, Tuple, Union

from . import native
from ._base import Handle, Progress, Tokens, described, floats, handle_of, info, loading_bar, readable, watcher
from ._header import MemoryInfo, ModelInfo
from .library import Path, model_options

if TYPE_CHECKING:
    from .cache import Cache, InitialState
    from .generation import Generation
    from .prefix_store import PrefixStore
    from .sampler import Sampler
    from .session import Session
    from .tokenizer import Tokenizer

# models that a pickled cache may belong to
_live: "weakref.WeakSet[Model]" = weakref.WeakSet()
_chosen: "contextvars.ContextVar[Optional[Model]]" = contextvars.ContextVar("wkv_model", default=None)


class Model(Handle):
    """The weights of one checkpoint, read-only, shared by any number of threads and caches.

    `device`: "auto" (the first usable GPU, else the CPU), "cpu", "cuda", "cuda:1". `weight_type`: "f32", "f16", "bf16",
    "q8", "q4" convert while loading, None leaves weights as they are stored. `progress`: True shows a bar; or a function
    of done and total bytes, which cancels with a true result. The other options: wkv_model_options in wkv/model.h.
    """

    @described("wkv_model_load")
    def __init__(self, path: Path, *, device: Optional[str] = "auto", threads: int = 0,
                 weight_type: Optional[str] = None, state_type: Optional[str] = None, memory_limit_bytes: int = 0,
                 kernels: Optional[str] = None, reproducible: bool = False, chunk_tokens: int = 0,
                 parking_limit_bytes: int = 0, progress: Union[bool, Progress, None] = None) -> None:
        options = model_options(device, threads, weight_type, state_type, memory_limit_bytes, kernels, reproducible,
                                chunk_tokens, parking_limit_bytes)
        finish = None
        if isinstance(progress, bool):
            progress, finish = loading_bar("loading") if progress else (None, None)
        watching = watcher(progress)
        options.set_progress(watching)
        try:
            self._handle = native.Model.load(path, options)
        finally:
            if finish:
                finish()
        self._parks = parking_limit_bytes > 0
        self._prepare(str(path) if not isinstance(path, bytes) else path.decode(errors="replace"))

    def _prepare(self, path: str) -> None:
        raw = native.ModelInfo()
        self._handle.get_info(raw)
        self.info = info(raw, ModelInfo)
        self.path = path
        self._tokenizer: Optional[Tokenizer] = None
        # native caches whose states other libraries see on a GPU: these must not be parked meanwhile
        self._exported: "weakref.WeakSet[Any]" = weakref.WeakSet()
        self._exporting = threading.Lock()
        _live.add(self)

    info: ModelInfo
    """Shapes, types, device, kernels: known also after closing."""

    @property
    def vocab_size(self) -> int:
        """Logits of a step: one a token id."""
        return self.info.vocab_size

    @property
    @described("wkv_model_get_memory")
    def memory(self) -> MemoryInfo:
        raw = native.MemoryInfo()
        self._use().get_memory(raw)
        return info(raw, MemoryInfo)

    @property
    @described("wkv_model_get_tokenizer")
    def tokenizer(self) -> Tokenizer:
        from .tokenizer import Tokenizer
        handle = self._use()
        if self._tokenizer is None or self._tokenizer.closed:
            self._tokenizer = Tokenizer._around(handle.get_tokenizer())
        return self._tokenizer

    def close(self) -> None:
        """Let go of the weights. Caches, tokenizers and generations of the model go on, and keep it in memory."""
        super().close()
        self._tokenizer = None

    def cache(self, *, initial_state: Optional[InitialState] = None, checkpoint_every_tokens: int = 0,
              checkpoints_count_max: int = 0, checkpoints_bytes_max: int = 0) -> Cache:
        """A cache that has read nothing: the same as Cache(model)."""
        from .cache import Cache
        return Cache(self, initial_state=initial_state, checkpoint_every_tokens=checkpoint_every_tokens,
                     checkpoints_count_max=checkpoints_count_max, checkpoints_bytes_max=checkpoints_bytes_max)

    @described("wkv_model_step")
    def step(self, items: Sequence[Tuple[Cache, Tokens]], *, samplers: Optional[Sequence[Optional[Sampler]]] = None,
             all_logits: bool = False, keep_states: bool = False, logits: bool = True,
             progress: Optional[Progress] = None) -> Any:
        """Feed several caches at once: items are pairs (cache, tokens).

        Gives a row of logits for each item, float32 [items, vocab_size]; with all_logits a list of [tokens, vocab_size];
        with samplers, one for each item, the list of chosen tokens instead; with logits=False nothing. A failure changes
        no cache, and its `item_errors` say which items were at fault and why.
        """
        from .cache import Cache
        from .sampler import Sampler
        handle = self._use()
        pairs = list(items)
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError("an item is a pair (cache, tokens)")
        flags = (native.STEP_ALL_LOGITS if all_logits else 0) | (native.STEP_ALL_STATES if keep_states else 0)
        width = self.info.vocab_size
        rows: Any = None
        if samplers is not None:
            if len(samplers) != len(pairs):
                raise ValueError(f"{len(pairs)} items and {len(samplers)} samplers")
        elif logits and all_logits:
            counted = [(cache, (tokens,) if isinstance(tokens, int) else tokens) for cache, tokens in pairs]
            pairs = counted
            rows = [floats(len(tokens), width) for _, tokens in pairs]
        elif logits:
            rows = floats(len(pairs), width)
            if isinstance(rows, memoryview):  # several dimensions cannot be taken apart
                rows = [floats(width) for _ in pairs]
        lent = [(handle_of(cache, Cache, "cache"), tokens, None if rows is None else rows[i],
                 None if samplers is None else handle_of(samplers[i], Sampler, "sampler"), flags)
                for i, (cache, tokens) in enumerate(pairs)]
        if progress is None:
            chosen = handle.step(lent)
        else:
            options, watching = native.StepOptions(), watcher(progress)
            options.set_progress(watching)
            chosen = handle.step_watched(lent, options)
        return chosen if samplers is not None else rows

    @described("wkv_generation_create")
    def generate(self, prompt: Union[str, bytes] = "", *, cache: Optional[Cache] = None,
                 previous: Optional[Generation] = None, **options: Any) -> Generation:
        """Text, piece by piece: `for piece in model.generate("Once upon a time", temperature=0.8): ...`

        cache: where the text goes on, None: a new one (`.cache` of what is returned). Options: those of Generation and
        of Sampler. Without temperature and other options of a sampler the likeliest token is chosen.
        """
        from .generation import Generation
        self._use()
        if previous is not None and cache is None:
            cache = previous.cache
        return Generation(self.cache() if cache is None else cache, prompt, previous=previous, **options)

    def prefix_store(self, **options: Any) -> PrefixStore:
        """A store of states of prompts that were read before: the same as PrefixStore(model)."""
        from .prefix_store import PrefixStore
        return PrefixStore(self, **options)

    @described("wkv_initial_state_load")
    def initial_state(self, path: Path, *, value_first: bool = False) -> InitialState:
        """A tuned initial state for caches of this model."""
        from .cache import InitialState
        return InitialState(self, path, value_first=value_first)

    @described("wkv_cache_load")
    def load_cache(self, path: Path) -> Cache:
        """A cache from a file that Cache.save or Session.save wrote."""
        from .cache import Cache
        handle = self._use()
        return Cache._around(native.Cache.load(handle, path), self, handle)

    @described("wkv_cache_deserialize")
    def cache_from_bytes(self, data: Any) -> Cache:
        """A cache from what Cache.to_bytes gave."""
        from .cache import Cache
        handle = self._use()
        return Cache._around(native.Cache.deserialize(handle, data), self, handle)

    @described("wkv_session_load")
    def load_session(self, path: Path, *, tokenizer: Optional[Tokenizer] = None) -> Session:
        """A session from a file that Session.save or Cache.save wrote."""
        from .session import Session
        return Session._load(self, path, None, tokenizer)

    @described("wkv_session_deserialize")
    def session_from_bytes(self, data: Any, *, tokenizer: Optional[Tokenizer] = None) -> Session:
        """A session from what Session.to_bytes gave."""
        from .session import Session
        return Session._load(self, None, data, tokenizer)

    @contextlib.contextmanager
    def unpickling(self) -> Iterator[Model]:
        """Pickled caches and sessions hold a state, not the weights; inside this block they belong to this model:

            with model.unpickling():
                cache = pickle.load(file)

        Without the block they go to a loaded model with the same fingerprint.
        """
        token = _chosen.set(self)
        try:
            yield self
        finally:
            _chosen.reset(token)

    def __repr__(self) -> str:
        i = self.info
        state = " closed" if self.closed else ""
        return (f"<wkv.Model{state} {self.path!r}: {i.layers} layers of {i.width}, {i.parameters / 1e6:.4g} M parameters, "
                f"{i.compute_types} on {i.device} ({i.kernels}), state {readable(i.state_bytes)}>")


def find_model(fingerprint: int) -> Model:
    """The model that something unpickled belongs to."""
    model = _chosen.get()
    if model is not None:
        return model
    models: List[Model] = [model for model in list(_live) if not model.closed]
    for model in models:
        if model.info.fingerprint == fingerprint:
            return model
    raise LookupError("a pickled cache needs its model: load it before, or use `with model.unpickling():`")

# SPDX-License-Identifier: Apache-2.0
"""A session: everything a conversation needs to go on, saved as one thing."""
from __future__ import annotations

from typing import Any, Optional

from . import native
from ._base import Floats, blob, described, floats, handle_of
from .cache import Cache, _save_options
from .generation import Generation
from .library import Path
from .model import Model, find_model
from .sampler import Sampler
from .tokenizer import Tokenizer


class Session:
    """A cache, and where there are any: a sampler, a generation in the middle of its text, the last scores.

        wkv.Session(generation=generation).save("chat.wkv")
        ...
        for piece in model.load_session("chat.wkv").generation: ...

    After a reload, in another process or on another machine, the next tokens are those that would have come. Pickling
    needs the model again: see Model.unpickling.
    """

    def __init__(self, cache: Optional[Cache] = None, sampler: Optional[Sampler] = None,
                 generation: Optional[Generation] = None, logits: Optional[Floats] = None) -> None:
        if cache is None and generation is not None:
            cache = generation.cache
        if cache is None:
            raise TypeError("a session needs a cache or a generation")
        if sampler is None and generation is not None:
            sampler = generation.sampler
        self.cache, self.sampler, self.generation, self.logits = cache, sampler, generation, logits

    def _lend(self) -> Any:
        raw = native.Session()
        # the struct keeps nothing: its proxies are put beside it
        held = (handle_of(self.cache, Cache, "cache"), handle_of(self.sampler, Sampler, "sampler"),
                handle_of(self.generation, Generation, "generation"))
        if self.logits is not None:
            raw.set_logits(self.logits)
        raw.__dict__["held"] = held
        raw.lend_parts(*held)
        return raw

    @described("wkv_session_save")
    def save(self, path: Path, *, state_type: Optional[str] = None) -> None:
        raw = self._lend()
        try:
            raw.save(path, _save_options(state_type))
        finally:
            raw.forget_parts()

    @described("wkv_session_serialize")
    def to_bytes(self, *, state_type: Optional[str] = None) -> bytes:
        """What save writes; model.session_from_bytes reads it."""
        raw, options = self._lend(), _save_options(state_type)
        try:
            return blob(lambda memory: raw.serialize(options, memory))
        finally:
            raw.forget_parts()

    @classmethod
    def load(cls, model: Model, path: Path) -> Session:
        """The same as model.load_session(path)."""
        return model.load_session(path)

    @classmethod
    def _load(cls, model: Model, path: Optional[Path], data: Any, tokenizer: Optional[Tokenizer]) -> Session:
        handle, raw = handle_of(model, Model, "model"), native.Session()
        held = handle_of(tokenizer, Tokenizer, "tokenizer")
        raw.set_tokenizer(held)
        raw.reserve_logits(model.info.vocab_size)
        if data is None:
            native.Session.load(handle, path, raw)
        else:
            native.Session.deserialize(handle, data, raw)
        logits = None
        if raw.has_logits:
            logits = floats(model.info.vocab_size)
            raw.get_logits(logits)
        sampler_handle, generation_handle = raw.take_sampler(), raw.take_generation()
        cache = Cache._around(raw.take_cache(), model, handle)
        sampler = None if sampler_handle is None else Sampler._around(sampler_handle)
        generation = None if generation_handle is None else Generation._around(generation_handle, cache, sampler)
        return cls(cache, sampler, generation, logits)

    def __reduce__(self) -> Any:
        return _unpickle, (self.cache.model.info.fingerprint, self.to_bytes())

    def __repr__(self) -> str:
        parts = [name for name in ("sampler", "generation", "logits") if getattr(self, name) is not None]
        return f"<wkv.Session: {self.cache!r}{''.join(', ' + name for name in parts)}>"


def _unpickle(fingerprint: int, data: bytes) -> Session:
    return find_model(fingerprint).session_from_bytes(data)

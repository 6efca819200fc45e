# SPDX-License-Identifier: Apache-2.0
"""A generation: text, piece by piece."""
from __future__ import annotations

from typing import Any, Iterable, Optional, Sequence, Tuple, Union

from . import native
from ._base import Handle, Progress, Tokens, described, handle_of, watcher, wrap
from .cache import Cache
from .prefix_store import PrefixStore
from .sampler import Sampler
from .tokenizer import Tokenizer

REASONS = {0: None, 1: "max_tokens", 2: "stop_token", 3: "stop_string"}


class Piece(str):
    """A piece of text, which may be empty: a str that also knows its token.

    token: the one chosen. reason: None, or why this is the last piece: "max_tokens", "stop_token", "stop_string".
    log_probability and alternatives [(token, log_probability)]: when they were asked for.
    """

    __slots__ = ("token", "reason", "log_probability", "alternatives")
    token: int
    reason: Optional[str]
    log_probability: float
    alternatives: Tuple[Tuple[int, float], ...]


class Generation(Handle):
    """An iterator of pieces. `"".join(generation)` is the text.

    prompt: text fed first; prompt_tokens: ids fed before it. Something must be fed, since the scores of a cache's last
    token are not kept. previous: a generation that has ended on the same cache: what it said and the cache has not read
    yet is fed first. stop: strings that end the text, and are taken back out of the cache unless keep_stop. sampler: or
    the options of one; neither: greedy.

    Between two pieces the cache is free, and Ctrl-C leaves everything in order: iterating again goes on.
    """

    cache: Cache
    sampler: Optional[Sampler]

    @described("wkv_generation_create")
    def __init__(self, cache: Cache, prompt: Union[str, bytes] = "", *, prompt_tokens: Tokens = (),
                 previous: Optional[Generation] = None, sampler: Optional[Sampler] = None, max_tokens: int = 0,
                 stop: Union[str, Iterable[str]] = (), stop_tokens: Tokens = (), keep_stop: bool = False,
                 ignore_end: bool = False, log_probability: bool = False, alternatives: int = 0,
                 accept_prompt: bool = False, tokenizer: Optional[Tokenizer] = None,
                 prefix_store: Optional[PrefixStore] = None, progress: Optional[Progress] = None,
                 **sampling: Any) -> None:
        unknown = [name for name in sampling if name not in Sampler.OPTIONS]
        if unknown:
            raise TypeError(f"unknown option {unknown[0]!r}")
        if sampling and sampler is not None:
            raise TypeError("a sampler has its options already")
        if sampling:
            sampler = Sampler(**sampling)
        if previous is not None:
            prompt, prompt_tokens = previous._go_on(prompt, prompt_tokens)
        options = native.GenerationOptions()
        # handles in options are not kept by them: these variables do, until the call has returned
        held = (handle_of(tokenizer, Tokenizer, "tokenizer"), handle_of(prefix_store, PrefixStore, "prefix_store"))
        options.set_tokenizer(held[0])
        options.set_prefix_store(held[1])
        options.set_prompt(prompt)
        options.set_prompt_tokens(prompt_tokens)
        options.set_stop_tokens(stop_tokens)
        for text in (stop,) if isinstance(stop, str) else stop:
            if "\0" in text:
                raise ValueError("a stop string cannot contain NUL")
            options.add_stop_string(text)
        options.max_tokens = max_tokens
        options.keeps_stop_string = int(keep_stop)
        options.keeps_end_token = int(ignore_end)
        options.wants_log_probability = int(log_probability)
        options.alternatives_count = alternatives
        options.accepts_prompt = int(accept_prompt)
        watching = watcher(progress)
        options.set_progress(watching)
        self._handle = native.Generation.create(handle_of(cache, Cache, "cache"),
                                                handle_of(sampler, Sampler, "sampler"), options)
        # as long as the native object: a call in another thread may outlive this one
        self._handle.__dict__["watching"] = watching
        self._prepare(cache, sampler)

    @classmethod
    def _around(cls, handle: Any, cache: Cache, sampler: Optional[Sampler]) -> Generation:
        made = wrap(cls, handle)
        made._prepare(cache, sampler)
        return made

    def _prepare(self, cache: Cache, sampler: Optional[Sampler]) -> None:
        self.cache, self.sampler = cache, sampler
        self._piece = native.GenerationPiece()

    def __iter__(self) -> Generation:
        return self

    @described("wkv_generation_next")
    def __next__(self) -> Piece:
        handle = self._handle
        if handle is None:
            handle = self._use()
        contents = handle.next(self._piece)
        if contents is None:
            raise StopIteration
        text, token, reason, log_probability, alternatives = contents
        piece = Piece(text)
        piece.token = token
        piece.reason = REASONS.get(reason, "unknown") if reason else None
        piece.log_probability = log_probability
        piece.alternatives = alternatives
        return piece

    def text(self) -> str:
        """All of the text that is still to come."""
        return "".join(self)

    @property
    def reason(self) -> Optional[str]:
        """Why it has ended: "max_tokens", "stop_token", "stop_string"; None: it has not."""
        return REASONS.get(self._piece.reason, "unknown") if self._piece.reason else None

    @property
    def pending_token(self) -> Optional[int]:
        """At the end: the last token chosen, which the cache has not read; None after a stop string."""
        return self._piece.pending_token if self._piece.reason and self._piece.pending_token >= 0 else None

    @property
    def unread(self) -> bytes:
        """After a stop string: the end of the text that the cache has not read; usually empty."""
        return bytes(self._piece.get_unread()) if self._piece.reason else b""

    @property
    def tokens_generated(self) -> int:
        """Tokens chosen so far."""
        return int(self._piece.tokens_generated)

    @property
    def prompt_tokens(self) -> int:
        """Tokens fed before the first choice."""
        return int(self._piece.prompt_tokens)

    @property
    def reused_tokens(self) -> int:
        """Those of the prompt that came from a prefix store."""
        return int(self._piece.reused_tokens)

    def _go_on(self, prompt: Union[str, bytes], tokens: Tokens) -> Tuple[Union[str, bytes], Tokens]:
        """Prompt and prompt tokens of the next turn, begun with what this one left unread."""
        if self.reason is None:
            raise ValueError("the previous generation has not ended")
        unread = self.unread
        if unread:
            prompt = unread + (prompt.encode() if isinstance(prompt, str) else bytes(prompt))
        if self.reason == "max_tokens" and self.pending_token is not None:
            more: Sequence[int] = (tokens,) if isinstance(tokens, int) else tokens
            tokens = [self.pending_token, *more]
        return prompt, tokens

    def __repr__(self) -> str:
        if self.closed:
            return "<wkv.Generation closed>"
        state = f"ended: {self.reason}" if self.reason else "going on"
        return f"<wkv.Generation: {self.tokens_generated} tokens, {state}>"

# SPDX-License-Identifier: Apache-2.0
"""A sampler: chooses the next token."""
from __future__ import annotations

from typing import Mapping, Optional

from . import native
from ._base import Floats, Handle, Tokens, described, floats, wrap


class Sampler(Handle):
    """Chooses the next token from scores. Owns a seeded random generator and the memory of penalties: the same seed,
    options and logits give the same tokens everywhere.

    temperature 0 or greedy=True: always the likeliest token. Other values as in wkv/sampler.h, where zero is "off".
    """

    OPTIONS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition", "presence", "frequency",
               "penalty_decay", "seed", "greedy", "biases", "banned_tokens", "exempt_tokens", "ids_end")

    @described("wkv_sampler_create")
    def __init__(self, *, temperature: Optional[float] = None, top_k: int = 0, top_p: float = 0.0, min_p: float = 0.0,
                 typical_p: float = 0.0, repetition: float = 0.0, presence: float = 0.0, frequency: float = 0.0,
                 penalty_decay: float = 0.0, seed: int = 0, greedy: bool = False,
                 biases: Optional[Mapping[int, float]] = None, banned_tokens: Tokens = (), exempt_tokens: Tokens = (),
                 ids_end: int = 0) -> None:
        options = native.SamplerOptions()
        options.is_greedy = int(greedy or temperature == 0)
        options.temperature = temperature or 0.0
        options.top_k = top_k
        options.top_p = top_p
        options.min_p = min_p
        options.typical_p = typical_p
        options.repetition = repetition
        options.presence = presence
        options.frequency = frequency
        options.penalty_decay = penalty_decay
        options.seed = seed
        options.ids_end = ids_end
        for token, bias in (biases or {}).items():
            options.add_bias(token, bias)
        options.set_banned_tokens(banned_tokens)
        options.set_exempt_tokens(exempt_tokens)
        self._handle = native.Sampler.create(options)

    @classmethod
    def _around(cls, handle: object) -> Sampler:
        return wrap(cls, handle)

    @described("wkv_sampler_sample")
    def sample(self, logits: Floats) -> int:
        """The chosen token."""
        return int(self._use().sample(logits))

    __call__ = sample

    @described("wkv_sampler_accept")
    def accept(self, token: int) -> None:
        self._use().accept(token)

    @described("wkv_sampler_get_probabilities")
    def probabilities(self, logits: Floats, out: Optional[Floats] = None) -> Floats:
        """float32 [vocab_size]; out may be the logits themselves."""
        handle = self._use()
        if out is None:
            out = floats(memoryview(logits).nbytes // 4, is_filled=True)
        handle.read_probabilities(logits, out)
        return out

    @described("wkv_sampler_reset")
    def reset(self, seed: int = 0) -> None:
        self._use().reset(seed)

    def __repr__(self) -> str:
        return f"<wkv.Sampler{' closed' if self.closed else ''}>"

# SPDX-License-Identifier: Apache-2.0
"""A tokenizer: text to token ids, and back."""
from __future__ import annotations

from typing import List, Union

from . import native
from ._base import Handle, Tokens, described, info, integers, wrap
from ._header import TokenizerInfo
from .library import Path


class Tokenizer(Handle):
    """Text to token ids by greedy longest match, and back; byte-exact. Shared by any number of threads."""

    @described("wkv_tokenizer_load")
    def __init__(self, path: Path) -> None:
        self._handle = native.Tokenizer.load(path)

    @classmethod
    def _around(cls, handle: object) -> Tokenizer:
        return wrap(cls, handle)

    @classmethod
    @described("wkv_tokenizer_load_memory")
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """From the content of a vocabulary file."""
        return cls._around(native.Tokenizer.load_memory(data))

    @described("wkv_tokenizer_encode")
    def encode(self, text: Union[str, bytes]) -> List[int]:
        handle = self._use()
        raw = text.encode() if isinstance(text, str) else text
        room = integers(len(raw))  # a token has at least one byte
        count = handle.encode(raw, room)
        return room[:count].tolist()

    @described("wkv_tokenizer_decode")
    def decode_bytes(self, tokens: Tokens) -> bytes:
        """The bytes of tokens."""
        handle = self._use()
        if not isinstance(tokens, int) and not hasattr(tokens, "__len__"):
            tokens = list(tokens)
        room = bytearray(handle.decode(tokens, None))
        return bytes(room[:handle.decode(tokens, room)])

    def decode(self, tokens: Tokens, errors: str = "replace") -> str:
        """The text of tokens; bytes that are not UTF-8 become U+FFFD, or what `errors` says (see bytes.decode)."""
        return self.decode_bytes(tokens).decode("utf-8", errors)

    def decoder(self) -> Decoder:
        """For tokens that arrive one by one: never splits a character."""
        return Decoder(self)

    @property
    @described("wkv_tokenizer_get_info")
    def info(self) -> TokenizerInfo:
        raw = native.TokenizerInfo()
        self._use().get_info(raw)
        return info(raw, TokenizerInfo)

    def __len__(self) -> int:
        return self.info.ids_end

    def __repr__(self) -> str:
        return "<wkv.Tokenizer closed>" if self.closed else f"<wkv.Tokenizer: {self.info.tokens} tokens>"


class Decoder(Handle):
    """Text of tokens that arrive one by one, always whole characters."""

    @described("wkv_decoder_create")
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._handle = native.Decoder.create(tokenizer._use())

    @described("wkv_decoder_push")
    def push(self, token: int) -> str:
        return str(self._use().push(token))

    @described("wkv_decoder_finish")
    def finish(self) -> str:
        return str(self._use().finish())

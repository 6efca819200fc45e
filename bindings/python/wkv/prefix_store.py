# SPDX-License-Identifier: Apache-2.0
"""A prefix store: prompts that were read before are not read again."""
from __future__ import annotations

from typing import Optional

from . import native
from ._base import Handle, Tokens, described, handle_of, info, readable, type_number
from ._header import PrefixStoreInfo
from .cache import Cache
from .library import Path
from .model import Model


class PrefixStore(Handle):
    """States of token sequences that were read before. Give it to Model.generate, or use find and put yourself."""

    model: Model

    @described("wkv_prefix_store_create")
    def __init__(self, model: Model, *, memory_bytes_max: int = 0, directory: Optional[Path] = None,
                 directory_bytes_max: int = 0, min_tokens: int = 0, save_type: Optional[str] = None) -> None:
        options = native.PrefixStoreOptions()
        options.memory_bytes_max = memory_bytes_max
        options.directory_bytes_max = directory_bytes_max
        options.min_tokens = min_tokens
        options.save_type = type_number(save_type)
        if directory is not None:
            options.set_directory(directory)
        self._handle = native.PrefixStore.create(handle_of(model, Model, "model"), options)
        self.model = model

    @described("wkv_prefix_store_find")
    def find(self, tokens: Tokens, cache: Cache) -> int:
        """The number of tokens that the cache has read now; 0: nothing was found."""
        return int(self._use().find(tokens, handle_of(cache, Cache, "cache")))

    @described("wkv_prefix_store_put")
    def put(self, tokens: Tokens, cache: Cache) -> None:
        self._use().put(tokens, handle_of(cache, Cache, "cache"))

    @described("wkv_prefix_store_clear")
    def clear(self) -> None:
        self._use().clear()

    @property
    @described("wkv_prefix_store_get_info")
    def info(self) -> PrefixStoreInfo:
        raw = native.PrefixStoreInfo()
        self._use().get_info(raw)
        return info(raw, PrefixStoreInfo)

    def __repr__(self) -> str:
        if self.closed:
            return "<wkv.PrefixStore closed>"
        i = self.info
        return f"<wkv.PrefixStore: {i.entries} entries, {readable(i.entries_bytes)}, {i.hits} of {i.finds} found>"

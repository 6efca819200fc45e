# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of a model as a tokenizer of transformers."""
from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from transformers import AddedToken, PreTrainedTokenizer

import wkv

END_NAME = "<|endoftext|>"


class RWKV7Tokenizer(PreTrainedTokenizer):  # type: ignore[misc]
    """For generate(stop_strings=..., tokenizer=...), streamers, and padded batches: `tokenizer(texts, padding=True,
    return_tensors="pt")` pads on the left with id 0, which is also the end of a text.

    A token is any bytes; in get_vocab() and convert_ids_to_tokens() each of its bytes is the character of the same number.
    """

    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "left"

    def __init__(self, tokenizer: wkv.Tokenizer, **options: Any) -> None:
        self._tokenizer = tokenizer
        self._names: List[str] = [tokenizer.decode_bytes(i).decode("latin-1") for i in range(1, tokenizer.info.ids_end)]
        self._ids: Dict[str, int] = {name: i for i, name in enumerate(self._names, 1) if name}
        options.setdefault("eos_token", END_NAME)
        options.setdefault("pad_token", END_NAME)
        end = AddedToken(END_NAME, special=True, normalized=False)
        super().__init__(added_tokens_decoder={0: end}, padding_side="left", **options)

    @property
    def vocab_size(self) -> int:
        """Ids, the end of text included."""
        return len(self._names) + 1

    def get_vocab(self) -> Dict[str, int]:
        """Names of tokens, and their ids."""
        return {END_NAME: 0, **self._ids}

    def _tokenize(self, text: str, **_: Any) -> List[str]:
        return [self._convert_id_to_token(i) for i in self._tokenizer.encode(text)]

    def _convert_token_to_id(self, token: str) -> Optional[int]:
        return self._ids.get(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self._names[index - 1] if 0 < index <= len(self._names) else ""

    def convert_tokens_to_string(self, tokens: List[str]) -> str:
        """Text of tokens by name; bytes that are not UTF-8 become U+FFFD."""
        return "".join(tokens).encode("latin-1").decode(errors="replace")

    def build_inputs_with_special_tokens(self, token_ids_0: List[int], token_ids_1: Optional[List[int]] = None) -> List[int]:
        """Nothing is added."""
        return token_ids_0 + (token_ids_1 or [])

    def save_vocabulary(self, save_directory: str, filename_prefix: Optional[str] = None) -> Tuple[str, ...]:
        """Refused."""
        raise NotImplementedError("the vocabulary lies in the model's file or beside it")

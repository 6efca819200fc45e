# SPDX-License-Identifier: Apache-2.0
"""A call of generate(): what each row still has to read.

Ids reach generate() in one of three ways: for an empty cache; as the whole history, of which the cache knows a part; or as
new ids alone with a mask of the whole length. A wrong guess would give wrong text and no error, so everything that can be
compared with what the cache has read is compared.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional, Tuple

import numpy
import torch

if TYPE_CHECKING:
    from .cache import Row, RWKV7Cache

ADVICE = "new ids alone need an attention_mask as long as the past and them together"


class Turn:
    """batch, prompt_columns: the shape of the ids given; mask_columns: of the mask, None if none was given; ends: ids after
    which a row reads nothing more, since what follows is padding."""

    def __init__(self, batch: int, prompt_columns: int, mask_columns: Optional[int], ends: List[int]) -> None:
        self.batch, self.prompt_columns, self.mask_columns, self.ends = batch, prompt_columns, mask_columns, ends
        self.has_begun = False
        self.columns = 0  # of the cache, when the prompt is read
        self.repeats = 1  # rows are read once and repeated, for beams and several answers

    def first(self, cache: RWKV7Cache, ids: torch.Tensor,
              mask: Optional[torch.Tensor]) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Ids and mask for the first forward."""
        repeats = ids.shape[0] // self.batch
        if repeats > 1 and cache.batch_size != ids.shape[0]:
            self.repeats = repeats
            ids, mask = ids[::repeats], None if mask is None else mask[::repeats]
        past, length = cache._columns, ids.shape[1]
        mask_columns = length if self.mask_columns is None else self.mask_columns
        if not past:
            if mask_columns != length:
                raise ValueError(f"a mask of {mask_columns} columns does not fit {length} ids: the cache has read nothing")
            if mask is not None and not mask.any(1).all():
                raise ValueError("a row has nothing to read: all of it is padding")
            self.columns = length
            return ids, mask
        if cache.batch_size != ids.shape[0]:
            raise ValueError(f"the cache holds {cache.batch_size} sequences, the input has {ids.shape[0]}")
        if mask is None:  # transformers drops a mask of ones
            mask = ids.new_ones((ids.shape[0], mask_columns))
        mask = mask.bool()
        if mask_columns > length:
            fed = self._new_alone(cache, ids, mask, mask_columns - length - past)
        elif mask_columns < length:
            raise ValueError(f"the mask has {mask_columns} columns, the ids {length}")
        else:
            fed = [self._rest(i, row, past, ids[i], mask[i]) for i, row in enumerate(cache._rows)]
        self.columns = mask_columns
        return left_padded(fed, ids)

    def _new_alone(self, cache: RWKV7Cache, ids: torch.Tensor, mask: torch.Tensor, missing: int) -> List[torch.Tensor]:
        """New ids, behind what the cache has read and, if the mask has room for it, the last id that was generated."""
        length, begin = ids.shape[1], mask.shape[1] - ids.shape[1]
        if missing not in (0, 1) or (missing == 1 and not all(row.unread for row in cache._rows)):
            raise ValueError(f"a mask of {mask.shape[1]} columns does not fit {cache._columns} in the cache and {length} "
                             "new ids")
        fed = []
        for i, row in enumerate(cache._rows):
            unread = row.unread if missing else row.unread[:-1]
            between = ids.new_tensor(unread)[mask[i, begin - len(unread):begin]] if unread else ids.new_empty(0)
            fed.append(torch.cat([between, ids[i][mask[i, begin:]]]))
        return fed

    def _rest(self, number: int, row: Row, past: int, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What of a whole history a row has not read."""
        if row.start and not row.tokens:  # of a state from elsewhere: columns are all there is to go by
            if self.mask_columns is None:
                raise ValueError("it is not known what this cache has read: pass an attention_mask, as long as the ids for "
                                 "a whole history, or longer by what the cache has read for new ids")
            rest = ids[past:][mask[past:]]
        else:
            history = ids[mask]
            if len(history) < row.position:
                raise ValueError(f"row {number} has {len(history)} ids, fewer than the {row.position} that the cache has "
                                 f"read; {ADVICE}")
            known = torch.from_numpy(numpy.array(row.tokens))  # a copy: a view would forbid the row to grow
            differ = (history[row.start:row.position].cpu() != known).nonzero()
            if len(differ):
                raise ValueError(f"the ids of row {number} do not begin with those that the cache has read: they differ at "
                                 f"{row.start + int(differ[0])}; {ADVICE}")
            rest = history[row.position:]
        if not len(rest):
            raise ValueError(f"row {number} has nothing to read: the cache has read all of its {int(mask.sum())} ids; "
                             f"{ADVICE}")
        return rest

    def next(self, cache: RWKV7Cache, ids: torch.Tensor) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """The last ids, and a mask where rows have ended."""
        if cache._columns - self.columns != ids.shape[1] - 1 - self.prompt_columns:
            raise RuntimeError("this cache was used by others while generate() ran")
        last = ids[:, -1:]
        if not self.ends:
            return last, None
        has_ended = torch.isin(ids[:, self.prompt_columns:], ids.new_tensor(self.ends)).any(1, keepdim=True)
        return last, (~has_ended).long() if has_ended.any() else None

    def end(self, cache: RWKV7Cache, sequences: torch.Tensor) -> None:
        """Remember what the rows have said and not read."""
        said = sequences[:, self.prompt_columns:]
        if not said.shape[1] or len(said) != len(cache._rows):
            return
        for row, ids in zip(cache._rows, said.tolist()):
            first = next((i for i, token in enumerate(ids) if token in self.ends), len(ids) - 1)
            row.unread = tuple(ids[first:])


def left_padded(rows: List[torch.Tensor], like: torch.Tensor) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
    """Rows of different lengths as one tensor and a mask."""
    lengths = [len(row) for row in rows]
    width = max(lengths)
    if min(lengths) == width:
        return torch.stack(rows), None
    ids, mask = like.new_zeros((len(rows), width)), torch.zeros((len(rows), width), dtype=torch.long, device=like.device)
    for i, row in enumerate(rows):
        ids[i, width - len(row):], mask[i, width - len(row):] = row, 1
    return ids, mask

"""Pack the captions, negatives and triples of a batch into rows, so that no padding is computed.

Token ids [N, L] of N captions go in; most are padding (a COCO caption fills about 13 of L = 77). R rows of C tokens
come out. Each row holds several captions, and an index says where each caption ends. Triples are packed in the same
way, by numpy on the host. A mask stops attention between captions; all other layers work on single tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["FURTHER", "attention_mask", "pack", "text_lengths"]

FURTHER = ("negative", "unit", "positive")
"""Kinds of text that a sample may have besides its caption, in columns NAME_text and NAME_triples."""

Columns = dict[str, NDArray[Any]]

_ALIGNED = 8
"""Row lengths are a multiple of this; otherwise attention kernels would copy the mask."""

_ROW_BITS = 6
"""A number of rows is rounded up to this many binary digits (1000 -> 1008), by less than 1 in 32."""

_TRIPLE_PLACES = 32
"""Minimum row length for triples. In longer rows, more attention is masked; in shorter rows, more places are empty."""


def pack(
    columns: Mapping[str, NDArray[Any]],
    parts: int = 1,
    *,
    on_negatives: bool = True,
    round_rows: bool = False,
) -> Columns:
    """Return the columns with text [B, L] and any `FURTHER` texts [B, M, L] replaced by packed rows.

    The batch is cut into `parts` equal parts, and each part is packed into R rows of C tokens. If captions are so long
    that packing saves nothing, the columns are returned unchanged.

    - packed_text int32 [parts * R, C]: the tokens of captions and further texts, side by side
    - packed_caption: the number of each token's text, from 1 in each part; 0 marks padding
    - packed_position: the position of each token in its text
    - text_end int64 [B], negative_end [B, M]: index of each text's last token in its part [R * C]; -1 means that the
      text is absent (only zeros)

    The triples of captions and further texts stay, for metrics, and are also packed, into S rows of P triples:

    - packed_triples [parts * S, P, 3, T]: the triples, side by side
    - packed_owner [parts * S, P]: the number of each triple's text, as in packed_caption
    - triple_slot [B, K], negative_slot [B, M, K]: index of each triple in its part [S * P]; -1 means that there is none

    Units and positives get the same columns (unit_end, unit_slot, ..). Triples of negatives are packed only if
    `on_negatives`. With `round_rows`, empty rows are added, so that R and S take few different values.
    """
    further = [name for name in FURTHER if f"{name}_text" in columns]
    texts = ["text", *(f"{name}_text" for name in further)]
    packed = {name: values for name, values in columns.items() if name not in texts}
    text = _by_part([columns[name] for name in texts], parts)
    lengths = text_lengths(text)  # the model never reads tokens after the end token
    start, rows, capacity = _starts(lengths, text.shape[2], round_rows)
    if rows * capacity >= text.shape[1] * text.shape[2]:
        return dict(columns)
    within = np.broadcast_to(np.arange(text.shape[2]), text.shape)
    kept: NDArray[np.bool_] = within < lengths[:, :, None]
    fill = _Filling(start, kept, rows, capacity)
    packed["packed_text"], packed["packed_position"] = fill(text), fill(within)
    packed["packed_caption"] = fill(_numbers(kept))
    ends = np.where(lengths > 0, start + lengths - 1, -1)
    counts = [columns[name][..., 0].size // parts for name in texts]
    packed |= _by_column(ends, counts, ["text_end", *(f"{name}_end" for name in further)], columns)
    if "triples" in columns:
        further_triples = {name: columns[f"{name}_triples"] for name in further}
        if "negative" in further_triples and not on_negatives:
            further_triples["negative"] = np.full_like(further_triples["negative"], -1)
        triples = _by_part([columns["triples"], *further_triples.values()], parts)
        kept = np.any(triples >= 0, axis=(3, 4))
        start, rows, capacity = _starts(kept.sum(2), max(triples.shape[2], _TRIPLE_PLACES), round_rows)
        fill = _Filling(start, kept, rows, capacity)
        packed["packed_triples"], packed["packed_owner"] = fill(triples), fill(_numbers(kept))
        slots = np.where(kept, start[:, :, None] + kept.cumsum(2) - 1, -1)
        packed |= _by_column(slots, counts, ["triple_slot", *(f"{name}_slot" for name in further)], columns)
    return packed


def text_lengths(text: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of tokens [...] of texts [..., L] up to the end token; 0 for an absent text (only zeros).

    Zeros at the end are not counted. Of another id that is repeated at the end, the first is counted as the end token.
    """
    reverse = text[..., ::-1]
    other = reverse != reverse[..., :1]
    padding = np.where(other.any(-1), other.argmax(-1), text.shape[-1])
    lengths: NDArray[np.int64] = text.shape[-1] - padding + (reverse[..., 0] != 0)
    return lengths


def _by_part(arrays: Sequence[NDArray[Any]], parts: int) -> NDArray[Any]:
    """Return [parts, N, ...] from arrays [B, ...] and [B, M, ...], concatenated in this order within each part."""
    row_shape = arrays[0].shape[1:]
    return np.concatenate([values.reshape(parts, -1, *row_shape) for values in arrays], axis=1)


def _by_column(
    values: NDArray[Any], counts: Sequence[int], names: Sequence[str], columns: Mapping[str, NDArray[Any]]
) -> Columns:
    """Undo `_by_part`: split values [parts, N, ...] into columns `names`, with `counts` values of each part."""
    batch, within = len(columns["text"]), values.shape[2:]
    pieces = np.split(values, np.cumsum(counts[:-1], dtype=int), axis=1)
    return {
        name: piece.reshape(batch, *((-1,) if k else ()), *within)
        for k, (name, piece) in enumerate(zip(names, pieces, strict=True))
    }


def _numbers(kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of each token's or triple's text, from 1 in each part."""
    return np.broadcast_to(np.arange(kept.shape[1])[:, None] + 1, kept.shape)


@dataclass(frozen=True)
class _Filling:
    """Function that copies each text's `kept` values into rows of length `capacity`, from `start` on."""

    start: NDArray[np.int64]
    kept: NDArray[np.bool_]
    rows: int
    capacity: int

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int32]:
        """Return rows [parts * rows, capacity, ...] of values [parts, N, n, ...]; empty places hold 0 (triples: -1)."""
        rows, more = len(values) * self.rows, values.shape[3:]
        filled = np.full((rows * self.capacity, *more), -1 if more else 0, np.int32)
        filled[self._places] = values[self.kept]
        return filled.reshape(rows, self.capacity, *more)

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        starts = np.arange(len(self.start))[:, None] * self.rows * self.capacity + self.start
        places: NDArray[np.int64] = starts[:, :, None] + self.kept.cumsum(2) - 1
        return places[self.kept]


def _starts(lengths: NDArray[np.int64], longest: int, round_rows: bool) -> tuple[NDArray[np.int64], int, int]:
    """Return each text's first index [parts, N] in its part's rows, the number of rows per part, and their length."""
    capacity = -(-longest // _ALIGNED) * _ALIGNED
    starts, counts = zip(*(_best_fit(part, capacity) for part in lengths.tolist()), strict=True)
    rows = max(1, *counts)
    if round_rows:  # the empty rows change the rounding of sums over rows
        multiple = 1 << max(0, rows.bit_length() - _ROW_BITS)
        rows = -(-rows // multiple) * multiple
    return np.stack(starts), rows, capacity


def _best_fit(lengths: list[int], capacity: int) -> tuple[NDArray[np.int64], int]:
    """Place texts by best fit, longest first; return their first indices and the number of rows."""
    start = np.zeros(len(lengths), np.int64)
    rows_with: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by their number of free places
    free = 0  # bit n is set if a row has n free places
    count = 0
    for caption in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[caption]
        if not length:
            break
        if fitting := free >> length:
            space = length + (fitting & -fitting).bit_length() - 1
            row = rows_with[space].pop()
            if not rows_with[space]:
                free &= ~(1 << space)
        else:
            row, space, count = count, capacity, count + 1
        start[caption] = row * capacity + capacity - space
        if space > length:
            rows_with[space - length].append(row)
            free |= 1 << (space - length)
    return start, count


def attention_mask(caption: Tensor, heads: int, dtype: torch.dtype, *, causal: bool) -> Tensor:
    """Return the additive mask [R * heads, C, C] that keeps attention within each packed text.

    `caption` [R, C] holds each token's text number. MultiheadAttention takes this layout.
    """
    places = caption.shape[1]
    allowed = caption[:, :, None] == caption[:, None, :]  # padding attends to padding: no row is all -inf
    if causal:
        allowed.tril_()
    mask = torch.zeros(len(caption), 1, places, places, dtype=dtype, device=caption.device)
    mask.masked_fill_(~allowed[:, None], -torch.inf)
    return mask.expand(-1, heads, -1, -1).flatten(0, 1)

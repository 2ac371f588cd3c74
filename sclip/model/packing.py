"""Captions and negatives of a batch packed into rows, so that the text tower computes no padding.

Token ids [N, L], most of them padding (COCO's captions have 13 of 77 tokens), go in on the host; rows [R, C] of
several captions each come out, and where each caption ends. Packing is done beside the training process's step, in
numpy; the device only looks up. Attention is masked between captions; everything else in a Transformer is by token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["PACKED", "attention_mask", "is_packable", "pack"]

Columns = dict[str, NDArray[Any]]

PACKED = ("packed_text", "packed_caption", "packed_position", "text_end", "negative_end")
"""Columns that stand for text and negative_text in a packed batch."""

_ALIGNED = 8
"""Places of a row are a multiple of this: attention kernels copy a mask whose rows are not so aligned."""


def pack(columns: Mapping[str, NDArray[Any]], parts: int = 1) -> Columns:
    """Return the columns with text [B, L] and negative_text [B, M, L], if there, packed.

    packed_text int32 [parts * R, C] holds the tokens of captions side by side, packed_caption the number of the
    caption of each token (0: padding), packed_position its place in it. text_end int64 [B] and negative_end [B, M]
    say where in [R * C] a caption's last token stands, -1 for a negative that is not there (no token but 0), of which
    nothing is computed. The rows of each of `parts` equal parts of the batch are packed apart, so that every column
    can be cut into that many.
    """
    packed = {name: values for name, values in columns.items() if name not in ("text", "negative_text")}
    text, negative = columns["text"], columns.get("negative_text")
    capacity = -(-text.shape[1] // _ALIGNED) * _ALIGNED
    of_parts = []
    for part in np.split(np.arange(len(text)), parts):
        captions = text[part]
        if negative is not None:
            captions = np.concatenate([captions, negative[part].reshape(-1, text.shape[1])])
        # The end token has the largest id; CLIP pools there (argmax), and what follows it is never looked at.
        lengths = np.where(captions.any(1), captions.argmax(1) + 1, 0)
        of_parts.append((captions, lengths, *_place(lengths.tolist(), capacity)))
    rows = max(count for *_, count in of_parts)
    filled = np.zeros((3, parts, rows * capacity), np.int32)
    ends = []
    for part_number, (captions, lengths, start, _) in enumerate(of_parts):
        within = np.concatenate([np.arange(length) for length in lengths])
        place = np.repeat(start, lengths) + within
        kept = np.arange(text.shape[1]) < lengths[:, None]
        numbers = np.repeat(np.arange(len(lengths)) + 1, lengths)
        filled[:, part_number, place] = captions[kept], numbers, within
        ends.append(np.where(lengths > 0, start + lengths - 1, -1))
    packed |= dict(zip(PACKED[:3], filled.reshape(3, parts * rows, capacity), strict=True))
    share = len(text) // parts
    packed["text_end"] = np.concatenate([end[:share] for end in ends])
    if negative is not None:
        packed["negative_end"] = np.concatenate([end[share:] for end in ends]).reshape(negative.shape[:2])
    return packed


def _place(lengths: list[int], capacity: int) -> tuple[NDArray[np.int64], int]:
    """Return where each caption starts in rows laid end to end, and the number of rows: best fit, longest first."""
    start = np.zeros(len(lengths), np.int64)
    rows_with: list[list[int]] = [[] for _ in range(capacity + 1)]  # by the places that are left in them
    free = 0  # bit n: there is a row with n places left
    count = 0
    for caption in sorted(range(len(lengths)), key=lambda caption: -lengths[caption]):
        length = lengths[caption]
        if not length:
            break
        if fitting := free >> length:
            left = length + (fitting & -fitting).bit_length() - 1
            row = rows_with[left].pop()
            if not rows_with[left]:
                free &= ~(1 << left)
        else:
            row, left, count = count, capacity, count + 1
        start[caption] = row * capacity + capacity - left
        if left > length:
            rows_with[left - length].append(row)
            free |= 1 << (left - length)
    return start, count


def attention_mask(caption: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """Return the additive mask [R * heads, C, C] of packed captions [R, C]: causal, and within a caption only.

    What torch's MultiheadAttention takes. Padding sees padding, so that no row of it is -inf alone.
    """
    places = caption.shape[1]
    allowed = (caption[:, :, None] == caption[:, None, :]).tril_()
    mask = torch.zeros(len(caption), 1, places, places, dtype=dtype, device=caption.device)
    mask.masked_fill_(~allowed[:, None], -torch.inf)
    return mask.expand(-1, heads, -1, -1).flatten(0, 1)


def is_packable(text: nn.Module) -> bool:
    """Return whether a text tower of open_clip (its CLIP or TextTransformer) computes the same of packed captions.

    So it is where attention is causal and within torch's own module, and the feature is the end token's: then no
    token sees the padding after it.
    """
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    blocks = getattr(getattr(text, "transformer", None), "resblocks", [])
    return (
        pool == "argmax"
        and getattr(text, "attn_mask", None) is not None
        and getattr(text, "cls_emb", None) is None
        and not getattr(text, "output_tokens", False)
        and all(isinstance(block.attn, nn.MultiheadAttention) and block.attn.batch_first for block in blocks)
    )

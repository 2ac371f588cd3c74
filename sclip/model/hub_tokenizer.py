"""Captions and phrases to the ids of a tokenizer from a hub: SigLIP's, XLM-V's, those of Hugging Face text towers.

Texts go in, ids come out, as open_clip's `HFTokenizer` gives them; `sclip.model.tokenizer` brings them into shape.
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from open_clip.tokenizer import HFTokenizer

from sclip.model import hub

__all__ = ["HubTokenizer", "hub_name"]

_WORD = re.compile(r"\S+")


def hub_name(text: Mapping[str, Any]) -> str:
    """Return the hub's name of the tokenizer of a `text_cfg`, "" where it is CLIP's BPE."""
    return str(text.get("hf_tokenizer_name") or text.get("hf_model_name") or "")


class HubTokenizer:
    """The tokenizer that the `text_cfg` of an architecture names."""

    def __init__(self, text: Mapping[str, Any], hub_folder: str) -> None:
        """Load it; raises `HubError` where it cannot be had, or has more words than the text tower."""
        self._name = hub_name(text)
        name = hub.source(self._name, hub_folder)
        with hub.hub_errors(name):
            # An encoder actor has a core, and no use for a thread of the tokenizer's on each of the others.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            self._theirs = HFTokenizer(
                name,
                tokenizer_mode=text.get("tokenizer_mode"),
                trust_remote_code=False,
                **text.get("tokenizer_kwargs", {}),
            )
        self._tokenizer: Any = self._theirs.tokenizer
        of_tower = hub.text_config(text, hub_folder) if text.get("hf_model_name") else None
        rows = of_tower.vocab_size if of_tower else text.get("vocab_size", 0)
        words = int(self._tokenizer.vocab_size)
        if words > rows:  # without added ones: T5's placeholders occur in no text
            raise hub.HubError(
                f"{name}: a tokenizer of {words:,} words and a text tower of {rows:,} are of two models"
            )
        # A causal tower that pools at its end token never looks at what follows; zeros are what packing leaves out.
        self._pads_with_0 = text.get("pool_type") == "eos" and not text.get("no_causal_mask")

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of no text: start, end, padding and their like."""
        return frozenset(self._tokenizer.all_special_ids)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text without start and end."""
        ids: list[int] = self._tokenizer(self._theirs.clean_fn(text), add_special_tokens=False).input_ids
        return ids

    def text(self, captions: Sequence[str], context_length: int) -> npt.NDArray[np.int32]:
        """Return the ids [N, L] of the captions, cut at L with the end token kept."""
        if not captions:
            return np.zeros((0, context_length), np.int32)
        ids: npt.NDArray[np.int32] = self._theirs(list(captions), context_length).numpy().astype(np.int32)
        if self._pads_with_0:
            ids[ids == self._tokenizer.pad_token_id] = 0
        return ids

    def read_end(self, caption: str, context_length: int) -> int:
        """Return how many characters of a caption fit: to the end of the last word, as white space divides them."""
        room = context_length - int(self._tokenizer.num_special_tokens_to_add())
        if (
            len(caption) < room and caption.isascii()
        ):  # no character is more than a token; one may stand before all
            return len(caption)
        if len(self.encode(caption)) <= room:
            return len(caption)
        ends = [word.end() for word in _WORD.finditer(caption)]
        fitting = bisect.bisect_right(ends, room, key=lambda end: len(self.encode(caption[:end])))
        return ends[fitting - 1] if fitting else 0

    def words(self, ids: Sequence[int]) -> list[str]:
        """Return each id as the vocabulary spells it."""
        return [str(word) for word in self._tokenizer.convert_ids_to_tokens(list(ids))]

    def save(self, folder: Path) -> None:
        """Write its files into a folder, which is made if missing."""
        self._theirs.save_pretrained(str(folder))

"""Tokenize captions and phrases with a hub's tokenizer: SigLIP's, XLM-V's, or a Hugging Face text tower's.

Texts go in; the ids of open_clip's `HFTokenizer` come out. `sclip.model.tokenizer` builds arrays from them.
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
    """Return the hub name of the tokenizer in a `text_cfg`; "" for CLIP's BPE."""
    return str(text.get("hf_tokenizer_name") or text.get("hf_model_name") or "")


class HubTokenizer:
    """Tokenizer from a hub, as named in the `text_cfg` of an architecture."""

    def __init__(self, text: Mapping[str, Any], hub_folder: str) -> None:
        """Load the tokenizer. Raise `HubError` if that fails, or if the tower has too few word embeddings for it."""
        self._name = hub_name(text)
        name = hub.source(self._name, hub_folder)
        with hub.hub_errors(name):
            # An encoder actor owns one core; the tokenizer must not start threads on the others.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            self._theirs = HFTokenizer(
                name,
                tokenizer_mode=text.get("tokenizer_mode"),
                trust_remote_code=False,
                **text.get("tokenizer_kwargs", {}),
            )
        self._tokenizer: Any = self._theirs.tokenizer
        tower_config = hub.text_config(text, hub_folder) if text.get("hf_model_name") else None
        rows = tower_config.vocab_size if tower_config else text.get("vocab_size", 0)
        words = int(self._tokenizer.vocab_size)
        if words > rows:  # added words do not count: T5's placeholders occur in no text
            raise hub.HubError(
                f"{name}: the tokenizer has {words:,} words, but the text tower only {rows:,}; use files of one model"
            )
        # A causal tower that pools at the end token never sees the padding, so pad with 0, which packing removes.
        self._pads_with_0 = text.get("pool_type") == "eos" and not text.get("no_causal_mask")

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that are not part of a text: start, end, padding and similar."""
        return frozenset(self._tokenizer.all_special_ids)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text without start and end tokens."""
        ids: list[int] = self._tokenizer(self._theirs.clean_fn(text), add_special_tokens=False).input_ids
        return ids

    def text(self, captions: Sequence[str], context_length: int) -> npt.NDArray[np.int32]:
        """Return the ids [N, context_length] of N captions; a cut caption keeps its end token."""
        if not captions:
            return np.zeros((0, context_length), np.int32)
        ids: npt.NDArray[np.int32] = self._theirs(list(captions), context_length).numpy().astype(np.int32)
        if self._pads_with_0:
            ids[ids == self._tokenizer.pad_token_id] = 0
        return ids

    def read_end(self, caption: str, context_length: int) -> int:
        """Return how many characters of a caption fit into `context_length` tokens. Words that are cut do not count."""
        room = context_length - int(self._tokenizer.num_special_tokens_to_add())
        if len(caption) < room and caption.isascii():  # at most one token per character, and one before them
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
        """Write the tokenizer's files into a folder, which is created if missing."""
        self._theirs.save_pretrained(str(folder))

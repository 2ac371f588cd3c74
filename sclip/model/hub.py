"""Load a text tower's config and a tokenizer from the Hugging Face hub, but never weights.

A hub name from open_clip's configs (`roberta-base`) goes in. `transformers` loads the files of this name: if
`model.hub_folder` is set, from a folder below it and without using the network. The loaded `HubTokenizer` takes texts
and returns the ids of open_clip's `HFTokenizer`; `sclip.model.tokenizer` builds arrays from them.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from open_clip.tokenizer import HFTokenizer

__all__ = ["FOLDER", "HubError", "HubTokenizer", "below", "hub_errors", "hub_name", "source", "text_config"]

FOLDER = "hub"
"""Subfolder of an export for hub files of text tower and tokenizer, in the layout of `model.hub_folder`."""

_WORD = re.compile(r"\S+")


class HubError(ValueError):
    """Error for hub files that cannot be loaded: one line that names the remedy."""


def source(name: str, hub_folder: str) -> str:
    """Return the folder of a hub name below `hub_folder`, or the name itself if `hub_folder` is empty.

    Raises `HubError` if the folder is missing.
    """
    if not hub_folder:
        return name
    folder = below(Path(hub_folder).expanduser(), name)
    if not folder.is_dir():
        raise HubError(f"model.hub_folder={hub_folder!r}: has no folder {name}; put its hub files there")
    return str(folder)


def below(folder: Path, name: str) -> Path:
    """Return `folder` / `name`, even if the hub name starts with "/"."""
    return folder / name.strip("/")


def text_config(text: Mapping[str, Any], hub_folder: str) -> Any:
    """Return the `transformers` config of the text tower in a `text_cfg`; raise `HubError` if it cannot be loaded."""
    name = source(text["hf_model_name"], hub_folder)
    with hub_errors(name):
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(name, trust_remote_code=False)


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn errors in the block into a `HubError` about `name`."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("transformers", "tokenizers"):
            raise HubError(
                f"{name} needs the package transformers, which is not installed: "
                "pip install 'sclip[transformers]'"
            ) from error
        raise HubError(f"{name}: {' '.join(str(error).split())}") from error
    except (OSError, ValueError, KeyError) as error:
        reason = re.split(r"\. |\n", str(error).strip())[0]
        raise HubError(
            f"{name} cannot be loaded ({reason}); put its files into model.hub_folder=FOLDER, as FOLDER/{name}"
        ) from error


def hub_name(text: Mapping[str, Any]) -> str:
    """Return the hub name of the tokenizer in a `text_cfg`; "" for CLIP's BPE."""
    return str(text.get("hf_tokenizer_name") or text.get("hf_model_name") or "")


class HubTokenizer:
    """Tokenizer from a hub, as named in the `text_cfg` of an architecture."""

    def __init__(self, text: Mapping[str, Any], hub_folder: str) -> None:
        """Load the tokenizer. Raise `HubError` if that fails, or if the tower has too few word embeddings for it."""
        self._name = hub_name(text)
        name = source(self._name, hub_folder)
        with hub_errors(name):
            # An encoder actor owns one core; the tokenizer must not start threads on the others.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            self._theirs = HFTokenizer(
                name,
                tokenizer_mode=text.get("tokenizer_mode"),
                trust_remote_code=False,
                **text.get("tokenizer_kwargs", {}),
            )
        self._tokenizer: Any = self._theirs.tokenizer
        tower_config = text_config(text, hub_folder) if text.get("hf_model_name") else None
        rows = tower_config.vocab_size if tower_config else text.get("vocab_size", 0)
        words = int(self._tokenizer.vocab_size)
        if words > rows:  # added words do not count: T5's placeholders occur in no text
            raise HubError(
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
